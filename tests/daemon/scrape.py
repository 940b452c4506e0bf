"""Asks an exporter for its pages, as a scraper does, and reads what it says."""

from __future__ import annotations

import http.client
import socket
from collections.abc import Mapping

from prometheus_client.parser import text_string_to_metric_families


class _Connection(http.client.HTTPConnection):
    """Over TCP or a Unix socket."""

    def __init__(self, address: str) -> None:
        super().__init__("localhost", timeout=8)
        self._address = address

    def connect(self) -> None:
        if self._address.startswith("unix:"):
            self.sock = socket.socket(socket.AF_UNIX)
            self.sock.settimeout(8)
            self.sock.connect(self._address[5:])
        else:
            host, _, port = self._address.rpartition(":")
            self.sock = socket.create_connection((host.strip("[]"), int(port)), 8)


def get(address: str, path: str, headers: Mapping[str, str] = {}) -> tuple[int, str, str]:
    """Status, content type and body."""
    connection = _Connection(address)
    try:
        connection.request("GET", path, headers=dict(headers))
        answer = connection.getresponse()
        return answer.status, answer.getheader("Content-Type", ""), answer.read().decode()
    finally:
        connection.close()


class Figures:
    """What /metrics says."""

    def __init__(self, text: str) -> None:
        self.samples = {
            (sample.name, tuple(sorted(sample.labels.items()))): sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
        }
        self.kinds = {family.name: family.type for family in text_string_to_metric_families(text)}

    def sum(self, name: str, **labels: str) -> float:
        """Of all samples of this name that have these labels; there must be one."""
        found = [
            value
            for (sample, its), value in self.samples.items()
            if sample == name and set(labels.items()) <= set(its)
        ]
        assert found, f"no {name} {labels}"
        return sum(found)

    def counters(self) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
        """All that may only grow."""
        return {key: value for key, value in self.samples.items() if key[0].endswith("_total")}


def scrape(address: str) -> Figures:
    """One scrape."""
    status, _, body = get(address, "/metrics")
    assert status == 200, body
    return Figures(body)
