"""What a person asks for once: checks, the self-test, scores of files."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from dicom_node.config import Config
from dicom_node.db import migrate
from dicom_node.domain.errors import ConfigError, NodeError
from dicom_node.domain.types import Destination, ImageResult
from dicom_node.node.accounting import check_audit
from dicom_node.node.due import provider_of
from dicom_node.node.itself import itself
from dicom_node.node.opening import calling_ae_title, destinations_of, now, open_node
from dicom_node.node.performing import sources_of
from dicom_node.node.retrieving import archives_of
from dicom_node.node.working import analyser

if TYPE_CHECKING:
    from dicom_node.pipeline.readiness import Finding
    from dicom_node.pipeline.selftest import Passed


def check(config: Config) -> list[Finding]:
    """Look at everything a start depends on; see `readiness`."""
    from dicom_node.deliver import mllp, scu, stow
    from dicom_node.pipeline import health, readiness, security
    from dicom_node.pipeline.readiness import Finding
    from dicom_node.worklist.connect import peer_of

    findings = [Finding("configuration", True, "valid")]
    try:
        with open_node(config) as node:
            findings.append(Finding("database", True, f"answers, schema {migrate.current(node.engine)}"))
            findings.append(readiness.store(node.files.root, node.files.require_space))
            findings.append(readiness.queue(health.snapshot(node.engine, node.files.root, now())))
    except ConfigError:
        raise
    except NodeError as error:
        findings.append(Finding("database and store", False, str(error)))
    findings += readiness.security(security.look(config, now()))
    findings += readiness.privacy([config.store.root, config.store.root / "audit"])
    findings += check_audit(config)
    findings += readiness.banks(config.score.banks, config.score.kinds)
    timeout = config.deliver.timeout
    by_kind: dict[str, Callable[[Destination], None]] = {
        "dicom": partial(scu.echo, calling_ae_title=calling_ae_title(config), timeout=timeout),
        "stow": partial(stow.probe, timeout=timeout),
        "hl7": partial(mllp.probe, timeout=timeout),
    }

    def echo(destination: Destination) -> None:
        by_kind[destination.kind](destination)

    findings += readiness.archives([peer_of(archive) for archive in archives_of(config).values()], echo)
    providers = [provider_of(one) for one in config.modality_worklists]
    providers += [
        Destination(one.name, one.ae_title, one.host, one.port, one.security) for one in sources_of(config)
    ]
    findings += readiness.worklists(providers, echo)
    return findings + readiness.destinations(destinations_of(config).values(), echo)


def selftest(
    config: Config, *, deliver: bool, timeout: float, username: str = "", passcode_file: Path | None = None
) -> Passed:
    """Send a phantom to the running node of this configuration; see `pipeline.selftest`."""
    from dicom_node.pipeline import selftest as test
    from dicom_node.score.bank_store import BankStore

    port = itself(config, username, passcode_file)
    active = list(BankStore(config.score.banks).active_hashes().values())
    with open_node(config) as node:
        return test.run(
            node.engine,
            node.files,
            port,
            active,
            tuple(node.destinations) if deliver else (),
            timeout,
        )


def score_files(config: Config, paths: Sequence[Path], bank: str | None) -> Iterator[ImageResult]:
    """Score files one by one with the named or the active bank."""
    scorer = analyser(config)
    for path in paths:
        yield scorer.analyse_file(path, bank)


def explain_file(config: Config, path: Path, bank: str | None) -> tuple[ImageResult, bytes]:
    """Score a file and draw where it lies far from normal; see `Analyser.explain_file`."""
    return analyser(config).explain_file(path, bank)
