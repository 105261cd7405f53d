"""deploy/Dockerfile, held against the program, the Makefile and pyproject.toml."""

from __future__ import annotations

import re
import shlex
import tomllib

from dicom_node.cli.main import app
from dicom_node.config import load
from dicom_node.pipeline.process import SELFTEST_AE_TITLE
from tests import deployment
from tests.deployment import ROOT, dockerfile, final_stage, image_environment

KNOWN = {
    *("ARG", "CMD", "COPY", "ENTRYPOINT", "ENV", "EXPOSE", "FROM", "HEALTHCHECK", "LABEL", "RUN", "STOPSIGNAL"),
    *("USER", "VOLUME", "WORKDIR"),
}


def test_every_instruction_is_one_that_the_format_has() -> None:
    assert {i.name for i in dockerfile()} <= KNOWN
    assert dockerfile()[0].name == "ARG"
    assert all(i.stage >= 0 for i in dockerfile() if i.name != "ARG")


def test_the_image_is_built_in_a_stage_of_its_own_and_keeps_only_the_environment() -> None:
    assert sum(i.name == "FROM" for i in dockerfile()) == 2
    copies = [i.words for i in final_stage("COPY")]
    assert copies == [["--from=build", "/opt/dicom-node", "/opt/dicom-node"]]
    assert not any("pip" in i.text for i in final_stage("RUN"))


def test_both_stages_stand_on_the_same_base_of_a_python_that_the_project_supports() -> None:
    bases = {i.words[0] for i in dockerfile() if i.name == "FROM"}
    assert bases == {"${PYTHON_IMAGE}"}
    base = next(i.text for i in dockerfile() if i.name == "ARG").removeprefix("PYTHON_IMAGE=")
    version = re.match(r"python:(\d+)\.(\d+)-slim", base)
    assert version, base
    needed = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["requires-python"]
    assert needed == ">=3.11"
    assert (int(version[1]), int(version[2])) >= (3, 11)


def test_what_it_copies_exists_and_is_all_that_the_build_needs() -> None:
    sources = [w for i in dockerfile() if i.name == "COPY" and i.stage == 0 for w in i.words[:-1]]
    assert all((ROOT / source).exists() for source in sources), sources
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    packages = project["tool"]["setuptools"]["packages"]["find"]["include"]
    needed = {project["project"]["readme"], *project["project"]["license-files"], "pyproject.toml"}
    assert set(sources) == needed | {name.rstrip("*") for name in packages}


def test_it_installs_the_same_torch_as_the_makefile_and_the_project() -> None:
    runs = " ".join(i.text for i in dockerfile() if i.name == "RUN")
    pinned = re.findall(r'"(torch==[^"]+)"', runs)
    assert pinned == re.findall(r'"(torch==[^"]+)"', (ROOT / "Makefile").read_text("utf-8"))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    assert pinned[0] in project["dependencies"]
    extras = re.findall(r'"\.\[([\w,]+)\]"', runs)
    assert [set(e.split(",")) <= set(project["optional-dependencies"]) for e in extras] == [True]


def test_the_package_index_is_an_argument() -> None:
    installs = [i.text for i in dockerfile() if i.name == "RUN" and "pip install" in i.text]
    assert installs
    assert all("pip install ${PIP_ARGS} " in text for text in installs)


def test_it_runs_without_rights_and_owns_only_its_data() -> None:
    (user,) = final_stage("USER")
    made = " ".join(i.text for i in final_stage("RUN"))
    assert f"--user-group --no-create-home --shell /usr/sbin/nologin {user.text}" in made
    uid = int(re.findall(r"--uid (\d+)", made)[0])
    assert uid > 0
    assert str(uid) in (ROOT / "deploy/compose.yaml").read_text("utf-8"), "who must be able to read the secret"
    (volume,) = final_stage("VOLUME")
    assert f"install -d -o {user.text} -g {user.text} -m 0700 {volume.text}" in made
    order = [i.name for i in dockerfile() if i.stage == 1]
    assert order.index("RUN") < order.index("USER") < order.index("VOLUME")


def test_its_settings_are_valid_and_keep_everything_on_the_volume() -> None:
    config = load(env=image_environment())
    (volume,) = final_stage("VOLUME")
    assert config.receive.host == "0.0.0.0"  # noqa: S104 - inside a container's own network
    assert config.store.root.is_relative_to(volume.text)
    assert config.score.banks.is_relative_to(volume.text)
    assert config.db.url.startswith(f"sqlite:///{volume.text}/")
    assert [i.text for i in final_stage("EXPOSE")] == [str(config.receive.port)]


def test_its_command_is_one_that_the_program_accepts() -> None:
    (entry,), (command,) = final_stage("ENTRYPOINT"), final_stage("CMD")
    program, *arguments = [*entry.words, *command.words]
    assert program in tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["scripts"]
    assert deployment.parse(app, arguments) == "serve"
    assert [i.text for i in final_stage("STOPSIGNAL")] == ["SIGTERM"]


def test_its_health_check_calls_with_the_title_and_port_that_the_node_has() -> None:
    (check,) = final_stage("HEALTHCHECK")
    command = shlex.split(check.text.partition("CMD ")[2])
    defaults = load().receive
    assert command[:4] == ["python", "-m", "pynetdicom", "echoscu"]
    assert command[command.index("--calling-aet") + 1] == SELFTEST_AE_TITLE
    assert (
        command[command.index("--called-aet") + 1] == f"${{DICOM_NODE__RECEIVE__AE_TITLE:-{defaults.ae_title}}}"
    )
    assert command[-2:] == ["127.0.0.1", f"${{DICOM_NODE__RECEIVE__PORT:-{defaults.port}}}"]
