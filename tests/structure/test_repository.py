"""The repository keeps to its own rules: closed top level, small files, plain names, no bad habits."""

from __future__ import annotations

import ast
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("dicom_node", "training")

FOLDERS = {"dicom_node", "training", "tests", "deploy", ".ci"}
FILES = {
    *("ARCHITECTURE.md", "CHANGELOG.md", "CONTRIBUTING.md", "LICENSE", "Makefile", "README.md"),
    *("config.toml", "pyproject.toml", ".gitignore", ".pre-commit-config.yaml"),
}
ROOMS = (
    *("cli", "web", "pipeline", "receive", "store", "queue", "score", "report", "deliver", "worklist"),
    *("db", "observe", "security", "domain"),
)
LARGEST = 310
EMPTY_NAMES = {"util", "utils", "helper", "helpers", "common", "base", "manager", "managers", "misc"}
MAY_CATCH_ANYTHING = {"dicom_node/receive/handlers.py", "dicom_node/pipeline/worker.py"}
UNSAFE = {"pickle", "cPickle", "cloudpickle", "dill", "joblib", "shelve", "marshal"}

# Written so that no pattern matches itself.
REGISTRIES = re.compile(
    r"py[p]i\.org|pythonhost[e]d|pytor[c]h\.org/whl|npm[j]s\.|conda\.anacond[a]|gh[c]r\.io|qua[y]\.io"
    r"|docke[r]\.io|hub\.docke[r]\.com|huggin[g]face\.co"
)
MACHINE_PATHS = re.compile(r"(?<![\w.~*-])/(?:[w]ork|[r]oot|[h]ome/\w+|[U]sers/\w+|opt/[p]ypi|opt/[w]heels)\b")


def _tracked() -> list[Path]:
    """Return what git tracks, and what it would track if it were added now."""
    done = subprocess.run(
        ["git", "-c", "safe.directory=*", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=False,
    )
    if done.returncode:
        pytest.skip("not a git checkout: what belongs to the repository cannot be told from what lies about")
    names = sorted(set(done.stdout.decode().split("\0")) - {""})
    return [Path(name) for name in names if (ROOT / name).is_file()]


def _modules() -> Iterator[tuple[str, ast.Module, str]]:
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            source = path.read_text(encoding="utf-8")
            yield path.relative_to(ROOT).as_posix(), ast.parse(source), source


def test_the_top_level_is_closed_and_complete() -> None:
    tracked = _tracked()
    assert {p.parts[0] for p in tracked if len(p.parts) > 1} == FOLDERS
    assert {p.name for p in tracked if len(p.parts) == 1} == FILES


@pytest.mark.parametrize("room", ROOMS)
def test_every_room_says_what_it_is(room: str) -> None:
    assert ast.get_docstring(ast.parse((ROOT / "dicom_node" / room / "__init__.py").read_text("utf-8")))


def test_there_is_no_room_beside_them() -> None:
    found = {p.parent.name for p in (ROOT / "dicom_node").glob("*/__init__.py")}
    assert found == {*ROOMS, "config", "node"}


def test_no_file_is_long() -> None:
    lengths = {name: len(source.splitlines()) for name, _, source in _modules()}
    assert {name: length for name, length in lengths.items() if length > LARGEST} == {}


def test_no_module_has_a_name_that_says_nothing() -> None:
    assert [p.as_posix() for p in _tracked() if p.suffix == ".py" and p.stem in EMPTY_NAMES] == []


def test_every_module_opens_with_what_it_owns() -> None:
    assert [name for name, tree, source in _modules() if source.strip() and not ast.get_docstring(tree)] == []


def _catches_anything(node: ast.AST) -> bool:
    if isinstance(node, ast.ExceptHandler):
        last = node.body[-1]
        if isinstance(last, ast.Raise) and last.exc is None:
            return False  # it cleans up and lets everything pass
        caught = node.type.elts if isinstance(node.type, ast.Tuple) else [node.type]
    elif isinstance(node, ast.Call) and ast.unparse(node.func).rpartition(".")[2] == "suppress":
        caught = list(node.args)
    else:
        return False
    return any(c is None or ast.unparse(c) in {"Exception", "BaseException"} for c in caught)


def test_only_the_store_handler_and_the_worker_loop_catch_anything() -> None:
    found = {name for name, tree, _ in _modules() if any(_catches_anything(node) for node in ast.walk(tree))}
    assert found == MAY_CATCH_ANYTHING


def _unsafe(node: ast.AST) -> bool:
    if isinstance(node, ast.Import):
        return any(alias.name.partition(".")[0] in UNSAFE for alias in node.names)
    if isinstance(node, ast.ImportFrom):
        only_the_error = [alias.name for alias in node.names] == ["UnpicklingError"]  # which torch.load raises
        return (node.module or "").partition(".")[0] in UNSAFE and not only_the_error
    if isinstance(node, ast.Call):
        given = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
        unchecked_load = ast.unparse(node.func) == "torch.load" and given.get("weights_only") != "True"
        return unchecked_load or given.get("allow_pickle") == "True"
    return False


def test_nothing_is_pickled() -> None:
    assert [name for name, tree, _ in _modules() if any(_unsafe(node) for node in ast.walk(tree))] == []


def test_no_text_names_a_registry_host_or_a_path_of_a_machine() -> None:
    faults = []
    for path in _tracked():
        try:
            text = (ROOT / path).read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
        for number, line in enumerate(text.splitlines(), 1):
            if REGISTRIES.search(line) or MACHINE_PATHS.search(line):
                faults.append(f"{path}:{number}: {line.strip()[:80]}")
    assert faults == []


def test_the_architecture_fits_on_a_few_pages() -> None:
    assert len((ROOT / "ARCHITECTURE.md").read_text("utf-8").splitlines()) <= 180


def _invariants() -> list[tuple[int, list[str]]]:
    text = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\|\s*(\d+)\s*\|.*\|([^|]*)\|\s*$", text, re.MULTILINE)
    return [(int(number), re.findall(r"(tests/[\w/]+\.py::\w+)", tests)) for number, tests in rows]


def test_every_invariant_has_a_test_that_exists() -> None:
    rows = _invariants()
    assert [number for number, _ in rows] == list(range(1, len(rows) + 1))
    assert len(rows) >= 9, "design: nine invariants, each with its test"
    missing = []
    for number, tests in rows:
        if not tests:
            missing.append(f"invariant {number} names no test")
        for test in tests:
            path, _, name = test.partition("::")
            file = ROOT / path
            if not file.is_file() or not _defines(file, name):
                missing.append(f"invariant {number}: there is no {test}")
    assert missing == []


def _defines(file: Path, name: str) -> bool:
    tree = ast.parse(file.read_text(encoding="utf-8"))
    return any(isinstance(node, ast.FunctionDef) and node.name == name for node in ast.walk(tree))
