"""deploy/: the files are well-formed, and what must fit together does."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import kubernetes_validate
import needs
import pytest
import yaml

from epolld.config import loads
from epolld.master.pool import KILL_AFTER_DRAIN

DEPLOY = Path(__file__).parents[2] / "deploy"
TOP = DEPLOY.parent
DOCUMENTS: list[dict[str, Any]] = list(yaml.safe_load_all((DEPLOY / "kubernetes.yaml").read_text()))
OLDEST, NEWEST = "1.25", kubernetes_validate.latest_version()  # of Kubernetes


def of_kind(kind: str) -> dict[str, Any]:
    (found,) = [each for each in DOCUMENTS if each["kind"] == kind]
    return found


def pod() -> dict[str, Any]:
    spec: dict[str, Any] = of_kind("Deployment")["spec"]["template"]["spec"]
    return spec


@pytest.mark.parametrize("version", [OLDEST, NEWEST])
@pytest.mark.parametrize("document", DOCUMENTS, ids=[each["kind"] for each in DOCUMENTS])
def test_the_api_takes_it(document: dict[str, Any], version: str) -> None:
    kubernetes_validate.validate(document, version, strict=True)


def test_the_schemas_refuse_a_mistake() -> None:
    document = yaml.safe_load(yaml.safe_dump(of_kind("Deployment")))
    document["spec"]["template"]["spec"]["terminationGracePeriod"] = 5
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(document, NEWEST, strict=True)


def test_a_pod_has_the_time_that_it_needs_to_end() -> None:
    config = loads(of_kind("ConfigMap")["data"]["epolld.yaml"], "epolld.yaml").config
    (container,) = pod()["containers"]
    word, seconds = container["lifecycle"]["preStop"]["exec"]["command"]
    assert word == "sleep"
    needed = int(seconds) + config.workers.graceful_timeout + KILL_AFTER_DRAIN
    assert pod()["terminationGracePeriodSeconds"] > needed


def test_names_and_ports_fit() -> None:
    config = loads(of_kind("ConfigMap")["data"]["epolld.yaml"], "epolld.yaml").config
    (container,) = pod()["containers"]
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    assert ports == {service.name: service.bind[0].port for service in config.services}  # type: ignore[union-attr]
    assert [port["targetPort"] for port in of_kind("Service")["spec"]["ports"]] == list(ports)
    labels = of_kind("Deployment")["spec"]["template"]["metadata"]["labels"]
    for kind in ("Service",):
        assert of_kind(kind)["spec"]["selector"] == labels
    for kind in ("Deployment", "PodDisruptionBudget"):
        assert of_kind(kind)["spec"]["selector"]["matchLabels"] == labels
    volumes = {volume["name"] for volume in pod()["volumes"]}
    assert {mount["name"] for mount in container["volumeMounts"]} == volumes


def test_probes_ask_the_exporter_that_there_is() -> None:
    config = loads(of_kind("ConfigMap")["data"]["epolld.yaml"], "epolld.yaml").config
    (container,) = pod()["containers"]
    for probe in ("readinessProbe", "livenessProbe", "startupProbe"):
        command = container[probe]["exec"]["command"]
        assert command[:3] == ["python", "-m", "epolld.probe"]
        assert command[3] == str(config.metrics.bind[0])
        assert container[probe]["timeoutSeconds"] > 2  # the command's own


def test_the_container_file() -> None:
    text = (DEPLOY / "Containerfile").read_text()
    for sources in re.findall(r"^COPY (?!--from)(.+) \S+$", text, re.MULTILINE):
        for source in sources.split():
            assert (TOP / source).exists(), source
    assert re.search(r'^ENTRYPOINT \["epolld", ', text, re.MULTILINE)
    assert re.search(r"^STOPSIGNAL SIGTERM$", text, re.MULTILINE)
    user = re.search(r"^USER (\d+):(\d+)$", text, re.MULTILINE)
    assert user
    assert [int(each) for each in user.groups()] == [
        pod()["securityContext"]["runAsUser"],
        pod()["securityContext"]["runAsGroup"],
    ]


def test_the_containers_configuration() -> None:
    config = loads((DEPLOY / "container.yaml").read_text(), "container.yaml").config
    assert str(config.metrics.bind[0]) == "127.0.0.1:9188"


def test_haproxy_takes_its_configuration() -> None:
    haproxy = needs.tool("haproxy")
    subprocess.run([haproxy, "-c", "-q", "-f", str(DEPLOY / "haproxy.cfg")], check=True)
