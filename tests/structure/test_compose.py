"""deploy/compose.yaml and the PACS's files, held against the program and the image.

No container engine runs here; tests/e2e/test_compose_commands.py starts what stands in it.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from dicom_node.cli.main import app
from dicom_node.config import Config, load
from tests import deployment
from tests.deployment import DEPLOY, ROOT, compose, final_stage, image_environment

SERVICES = compose()["services"]
OURS = ("node", "worker")
KEYS = {
    *(
        "build",
        "cap_drop",
        "command",
        "depends_on",
        "deploy",
        "environment",
        "healthcheck",
        "image",
        "networks",
    ),
    *("ports", "read_only", "restart", "secrets", "security_opt", "shm_size", "stop_grace_period", "tmpfs"),
    "volumes",
}
HEALTH_KEYS = {"test", "interval", "timeout", "retries", "start_period", "disable"}
DURATION = re.compile(r"(\d+)s")


def config_of(service: str) -> Config:
    """Return the configuration that a service's process has: the image's variables, then its own.

    The secret is not read: it is there only in the container.
    """
    return load(env={**image_environment(), **SERVICES[service]["environment"]})


def test_the_file_has_the_parts_that_the_format_knows() -> None:
    parts = {key for key in compose() if not key.startswith("x-")}
    assert parts == {"name", "services", "networks", "volumes", "secrets"}
    assert set(SERVICES) == {"node", "worker", "db", "pacs"}


@pytest.mark.parametrize("service", SERVICES)
def test_a_service_has_known_keys_and_names_only_what_is_declared(service: str) -> None:
    it: dict[str, Any] = SERVICES[service]
    assert set(it) <= KEYS
    assert set(it.get("healthcheck", {})) <= HEALTH_KEYS
    assert set(it["networks"]) <= set(compose()["networks"])
    assert set(it.get("secrets", [])) <= set(compose()["secrets"])
    assert set(it.get("depends_on", {})) <= set(SERVICES)
    named = {v.partition(":")[0] for v in it["volumes"] if not v.startswith(".")}
    assert named <= set(compose()["volumes"])


@pytest.mark.parametrize("service", SERVICES)
def test_a_service_comes_back_after_a_crash_and_has_time_to_stop(service: str) -> None:
    assert SERVICES[service]["restart"] == "unless-stopped"
    grace = DURATION.fullmatch(SERVICES[service]["stop_grace_period"])
    assert grace
    if service in OURS:
        assert int(grace[1]) > config_of(service).deliver.timeout


@pytest.mark.parametrize("service", SERVICES)
def test_environment_values_are_text(service: str) -> None:
    assert all(isinstance(value, str) for value in SERVICES[service].get("environment", {}).values())


@pytest.mark.parametrize("service", SERVICES)
def test_ports_are_open_on_this_machine_only_unless_someone_says_otherwise(service: str) -> None:
    for port in SERVICES[service].get("ports", []):
        assert re.fullmatch(r"\$\{[A-Z_]+:-127\.0\.0\.1\}:\d+:\d+", port)


@pytest.mark.parametrize("service", SERVICES)
def test_files_that_it_mounts_exist(service: str) -> None:
    mounted = [v.partition(":")[0] for v in SERVICES[service]["volumes"] if v.startswith(".")]
    assert all((DEPLOY / path).is_file() for path in mounted), mounted


@pytest.mark.parametrize(("service", "command"), [("node", "receive"), ("worker", "work")])
def test_the_program_accepts_the_command(service: str, command: str) -> None:
    assert deployment.parse(app, SERVICES[service]["command"]) == command


@pytest.mark.parametrize("service", OURS)
def test_our_services_have_no_rights_beyond_their_volume(service: str) -> None:
    it = SERVICES[service]
    assert it["read_only"] is True
    assert it["cap_drop"] == ["ALL"]
    assert it["security_opt"] == ["no-new-privileges:true"]
    (volume,) = final_stage("VOLUME")
    assert [v.rpartition(":")[2] for v in it["volumes"]] == [volume.text]


def test_receiver_and_workers_share_database_store_banks_and_destinations() -> None:
    node, worker = config_of("node"), config_of("worker")
    for section in ("db", "store", "destinations", "receive", "report", "queue"):
        assert getattr(node, section) == getattr(worker, section)
    assert node.score.banks == worker.score.banks
    assert SERVICES["node"]["volumes"] == SERVICES["worker"]["volumes"]
    assert SERVICES["node"]["image"] == SERVICES["worker"]["image"]


def test_there_are_two_workers_and_only_they_have_no_health_check() -> None:
    assert SERVICES["worker"]["deploy"]["replicas"] == 2
    assert SERVICES["worker"]["healthcheck"] == {"disable": True}
    assert "healthcheck" not in SERVICES["node"], "the image's own stands"
    assert all(SERVICES[name]["healthcheck"]["test"][0] == "CMD" for name in ("db", "pacs"))


def test_the_database_is_the_one_that_the_node_names_and_its_password_is_a_file() -> None:
    config, db = config_of("node"), SERVICES["db"]["environment"]
    expected = f"postgresql+psycopg://{db['POSTGRES_USER']}@db/{db['POSTGRES_DB']}"
    assert config.db.url == expected
    assert str(config.db.password_file) == db["POSTGRES_PASSWORD_FILE"] == "/run/secrets/db_password"
    assert not any("PASSWORD" in key and not key.endswith("FILE") for s in SERVICES for key in _environment(s))
    assert compose()["networks"]["database"] == {"internal": True}
    assert SERVICES["db"]["networks"] == ["database"]
    assert "ports" not in SERVICES["db"]


def _environment(service: str) -> dict[str, str]:
    return dict(SERVICES[service].get("environment", {}))


def test_the_secret_is_kept_out_of_the_repository() -> None:
    file = Path(compose()["secrets"]["db_password"]["file"])
    assert "*" in (DEPLOY / file.parent / ".gitignore").read_text("utf-8").splitlines()


def test_the_published_port_is_the_one_that_the_node_listens_on() -> None:
    (port,) = SERVICES["node"]["ports"]
    assert port.endswith(f":{config_of('node').receive.port}:{config_of('node').receive.port}")


def test_the_node_and_the_pacs_know_each_other() -> None:
    pacs = json.loads((DEPLOY / "orthanc/orthanc.json").read_text("utf-8"))
    config = config_of("node")
    (destination,) = config.destinations
    assert (destination.ae_title, destination.port) == (pacs["DicomAet"], pacs["DicomPort"])
    assert destination.host in SERVICES
    (modality,) = pacs["DicomModalities"].values()
    assert modality == {"AET": config.receive.ae_title, "Host": "node", "Port": config.receive.port}
    assert {f":{pacs['DicomPort']}:{pacs['DicomPort']}", f":{pacs['HttpPort']}:{pacs['HttpPort']}"} == {
        port.partition("}")[2] for port in SERVICES["pacs"]["ports"]
    }
    mounted = [v.split(":")[1] for v in SERVICES["pacs"]["volumes"]]
    assert pacs["StorageDirectory"] in mounted
    assert set(pacs["LuaScripts"]) <= set(mounted)
    assert SERVICES["pacs"]["command"] == ["/etc/orthanc/orthanc.json"]


def test_the_pacs_forwards_to_a_modality_that_it_knows_and_what_the_node_scores() -> None:
    script = (DEPLOY / "orthanc/forward.lua").read_text("utf-8")
    pacs = json.loads((DEPLOY / "orthanc/orthanc.json").read_text("utf-8"))
    assert re.findall(r"SendToModality\(instance, '([\w-]+)'\)", script) == list(pacs["DicomModalities"])
    assert set(re.findall(r"(\w+) = true", script)) == set(load().score.eligibility.modalities)


def test_the_image_has_the_version_of_the_program() -> None:
    text = (ROOT / "pyproject.toml").read_text("utf-8")
    version = re.findall(r'^version = "(.+)"$', text, re.MULTILINE)[0]
    assert SERVICES["node"]["image"] == f"dicom-node:{version}"
