"""A snapshot as families of metrics, with names by Prometheus' conventions.

https://prometheus.io/docs/practices/naming/. Every counter that can be known is there from the
start, with 0: one that appeared with its first event would hide that event from `rate()`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping

from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric

from epolld import __version__, ledger
from epolld.causes import ENDS, REFUSALS, RESTARTS
from epolld.exporter.processes import ProcessFacts, look
from epolld.exporter.snapshot import Snapshot
from epolld.ledger import Count, Kind, MasterWord
from epolld.scoreboard import WorkerState

BY_SERVICE = ("service", "worker")


def families(snapshot: Snapshot, ready: bool, master_pid: int) -> Iterator[Metric]:
    """All that is shown, in a fixed order."""
    yield from _daemon(snapshot, ready)
    yield from _connections(snapshot)
    yield from _listeners(snapshot)
    yield _certificates(snapshot)
    yield from _workers(snapshot)
    yield from _processes(snapshot, master_pid)
    yield from _application(snapshot)


def _daemon(snapshot: Snapshot, ready: bool) -> Iterator[Metric]:
    master = snapshot.master
    build = GaugeMetricFamily("epolld_build_info", "The program's version.", labels=["version"])
    build.add_metric([__version__], 1)
    yield build
    for name, help, value in (
        ("epolld_ready", "1 while clients are served: what /readyz says.", int(ready)),
        (
            "epolld_start_time_seconds",
            "When the daemon was started, in seconds since 1970; an upgrade is no start.",
            master[MasterWord.STARTED],
        ),
        ("epolld_generation", "The configuration in force.", master[MasterWord.GENERATION]),
        (
            "epolld_last_reload_successful",
            "1 if the last reload worked, and before any.",
            master[MasterWord.LAST_RELOAD_DONE] if master[MasterWord.LAST_RELOAD] else 1,
        ),
        (
            "epolld_last_reload_timestamp_seconds",
            "When the last reload ended, in seconds since 1970; 0 before any.",
            master[MasterWord.LAST_RELOAD],
        ),
    ):
        yield GaugeMetricFamily(name, help, value=value)
    reloads = CounterMetricFamily("epolld_reloads", "Reloads by result.", labels=["result"])
    reloads.add_metric(["done"], master[MasterWord.RELOADS_DONE])
    reloads.add_metric(["failed"], master[MasterWord.RELOADS_FAILED])
    yield reloads
    yield CounterMetricFamily(
        "epolld_upgrades", "Upgrades in place.", value=master[MasterWord.UPGRADES]
    )
    restarts = CounterMetricFamily(
        "epolld_worker_restarts", "Workers that had to be replaced.", labels=["cause"]
    )
    for cause, count in zip(RESTARTS, snapshot.restarts, strict=True):
        restarts.add_metric([cause], count)
    yield restarts
    yield CounterMetricFamily(
        "epolld_exporter_restarts",
        "Times that this exporter had to be replaced.",
        value=master[MasterWord.EXPORTER_RESTARTS],
    )


def _connections(snapshot: Snapshot) -> Iterator[Metric]:
    live = GaugeMetricFamily("epolld_connections", "Live connections.", labels=BY_SERVICE)
    sums = [
        (
            CounterMetricFamily(name, help, labels=BY_SERVICE),
            word,
        )
        for name, help, word in (
            ("epolld_connections_accepted", "Connections accepted.", Count.ACCEPTED),
            ("epolld_received_bytes", "Bytes received from clients.", Count.BYTES_IN),
            ("epolld_sent_bytes", "Bytes sent to clients.", Count.BYTES_OUT),
        )
    ]
    moved = CounterMetricFamily(
        "epolld_connections_moved",
        "Live connections handed over to another worker (out) or taken over (in).",
        labels=[*BY_SERVICE, "direction"],
    )
    closed = CounterMetricFamily(
        "epolld_connections_closed",
        "Connections that have ended, time limits included.",
        labels=[*BY_SERVICE, "cause"],
    )
    refused = CounterMetricFamily(
        "epolld_connections_refused",
        "Connections that were not served.",
        labels=[*BY_SERVICE, "cause"],
    )
    for (slot, index), words in sorted(snapshot.counts.items()):
        labels = [snapshot.services[index], str(slot)]
        live.add_metric(labels, words[Count.LIVE])
        for family, word in sums:
            family.add_metric(labels, words[word])
        moved.add_metric([*labels, "in"], words[Count.MOVED_IN])
        moved.add_metric([*labels, "out"], words[Count.MOVED_OUT])
        for cause in ENDS:
            closed.add_metric([*labels, cause], words[ledger.END_WORD[cause]])
        for cause in REFUSALS:
            refused.add_metric([*labels, cause], words[ledger.REFUSAL_WORD[cause]])
    yield live
    yield from (family for family, _ in sums)
    yield from (closed, refused, moved)


def _listeners(snapshot: Snapshot) -> Iterator[Metric]:
    labels = ["service", "address"]
    length = GaugeMetricFamily(
        "epolld_accept_queue_length", "Clients that wait to be accepted.", labels=labels
    )
    limit = GaugeMetricFamily(
        "epolld_accept_queue_limit", "The most clients that may wait.", labels=labels
    )
    for facts in snapshot.listeners:
        service, _, address = facts.name.partition(" ")
        length.add_metric([service, address], facts.queued)
        limit.add_metric([service, address], facts.limit)
    yield from (length, limit)


def _certificates(snapshot: Snapshot) -> Metric:
    family = GaugeMetricFamily(
        "epolld_certificate_end_timestamp_seconds",
        "When the first of the service's certificates ends, in seconds since 1970.",
        labels=["service"],
    )
    for name, end in zip(snapshot.services, snapshot.certificate_ends, strict=True):
        if end:
            family.add_metric([name], end)
    return family


def _workers(snapshot: Snapshot) -> Iterator[Metric]:
    number = GaugeMetricFamily("epolld_workers", "Worker processes.", labels=["state"])
    for state in WorkerState:
        number.add_metric(
            [state.name.lower()], sum(worker.state is state for worker in snapshot.workers)
        )
    yield number
    yield GaugeMetricFamily(
        "epolld_workers_wanted",
        "Workers that there shall be.",
        value=snapshot.master[MasterWord.WORKERS_WANTED],
    )
    lags: dict[int, tuple[int, int]] = {}
    for worker in snapshot.workers:
        last, most = lags.get(worker.slot, (0, 0))
        lags[worker.slot] = max(last, worker.lag), max(most, worker.lag_max)
    for name, help, which in (
        ("epolld_loop_lag_seconds", "How late the event loop's last tick came.", 0),
        ("epolld_loop_lag_max_seconds", "The latest tick of the last minute or two.", 1),
    ):
        family = GaugeMetricFamily(name, help, labels=["worker"])
        for slot, values in sorted(lags.items()):
            family.add_metric([str(slot)], values[which] / 1e9)
        yield family


def _processes(snapshot: Snapshot, master_pid: int) -> Iterator[Metric]:
    """By process and worker; during a reload a slot has several processes, which are added up."""
    found: dict[tuple[str, str], list[ProcessFacts]] = {}
    for process, worker, pid in [
        ("master", "", master_pid),
        ("exporter", "", os.getpid()),
        *(("worker", str(each.slot), each.pid) for each in snapshot.workers),
    ]:
        facts = look(pid)
        if facts is not None:
            found.setdefault((process, worker), []).append(facts)
    gone = {("worker", str(slot)): cpu for slot, cpu in snapshot.cpu_of_gone.items()}
    labels = ["process", "worker"]
    cpu = CounterMetricFamily("epolld_process_cpu_seconds", "Processor time used.", labels=labels)
    for key in sorted({*found, *gone}):
        cpu.add_metric(key, gone.get(key, 0.0) + sum(each.cpu for each in found.get(key, ())))
    yield cpu
    yield _sum(found, "epolld_process_resident_memory_bytes", "Memory held.", "resident")
    yield _sum(found, "epolld_process_open_fds", "Descriptors open.", "descriptors")
    yield _sum(
        found, "epolld_process_max_fds", "The most descriptors allowed.", "descriptors_limit"
    )


def _sum(
    found: Mapping[tuple[str, str], list[ProcessFacts]], name: str, help: str, attribute: str
) -> Metric:
    family = GaugeMetricFamily(name, help, labels=["process", "worker"])
    for key, processes in sorted(found.items()):
        values = [getattr(each, attribute) for each in processes]
        if None not in values:
            family.add_metric(key, sum(values))
    return family


def _application(snapshot: Snapshot) -> Iterator[Metric]:
    for metric in snapshot.application:
        kind = CounterMetricFamily if metric.declared.kind is Kind.COUNTER else GaugeMetricFamily
        family = kind(
            metric.declared.name, metric.declared.help or metric.declared.name, labels=["worker"]
        )
        for slot, value in sorted(metric.by_slot.items()):
            family.add_metric([str(slot)], value)
        yield family
