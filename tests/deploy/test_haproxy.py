"""HAProxy before two hosts, each upgraded in turn under load: nobody is refused, nothing is reset.

A short run of tests/deploy/cluster.py, which takes the number of seconds for a longer one.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import needs
import pytest

sys.path.insert(0, str(Path(__file__).parent))  # cluster.py is a program, too

import cluster as machines


@pytest.fixture(scope="module")
def cluster() -> Iterator[machines.Cluster]:
    """Two hosts and a load balancer."""
    needs.root()
    needs.tool("ip", "iproute2")
    needs.tool("haproxy")
    needs.tool("setpriv", "util-linux")
    probe = ["unshare", "--net", "ip", "link", "add", "type", "veth"]
    if subprocess.run(probe, capture_output=True, check=False).returncode:
        needs.lacking("the right to make network namespaces")
    with machines.cluster() as made:
        yield made


def test_each_host_is_upgraded_in_place(cluster: machines.Cluster) -> None:
    with machines.clients(cluster) as counts:
        for name in list(cluster.hosts):
            cluster.upgrade(name)
    assert machines.harm(counts) == {}
    assert counts["long well"] == 20  # each has lived through both upgrades
    assert counts["long requests"] > 20
    assert counts["short well"] > 20


def test_each_host_is_replaced(cluster: machines.Cluster) -> None:
    """Drained at the load balancer, stopped, started anew: for short requests no harm either."""
    with machines.clients(cluster, longs=0) as counts:
        for name in list(cluster.hosts):
            cluster.replace(name)
    assert machines.harm(counts) == {}
    assert counts["short well"] > 20


def test_a_host_that_dies_costs_new_clients_nothing(cluster: machines.Cluster) -> None:
    """HAProxy asks the other one, before its checks have noticed."""
    cluster.hosts["host1"].end(9)
    with machines.clients(cluster, longs=0) as counts:
        cluster.wait_state("host1", "DOWN")
    assert machines.harm(counts) == {}
    cluster.start_host("host1")
    cluster.wait_state("host1", "UP")
