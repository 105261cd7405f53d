"""Builds the reading worklist: the desk, the people, the application, its server."""

from __future__ import annotations

import logging
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

from dicom_node.config import Config
from dicom_node.domain.errors import NodeError
from dicom_node.node.opening import Node, now

if TYPE_CHECKING:
    from dicom_node.pipeline.desk import NodeDesk
    from dicom_node.pipeline.people import People
    from dicom_node.pipeline.pictures import NodePictures

log = logging.getLogger(__name__)


def people(node: Node) -> People:
    """Return who may look."""
    from dicom_node.pipeline.people import People

    web = node.config.web
    return People(
        node.engine,
        now,
        session_hours=web.session_hours,
        idle_minutes=web.idle_minutes,
        audit=node.audit,
    )


PICTURES = (sys.executable, "-m", "dicom_node.pipeline.picture")
"""Command of the process that draws pictures."""

_AHEAD_SECONDS, _SWEEP_SECONDS = 5.0, 600.0


@contextmanager
def pictures(node: Node) -> Iterator[NodePictures]:
    """Make what draws pictures; its process ends with the block.

    Beside it runs a thread that draws thumbnails of what has come, and sweeps the cache now and then.
    """
    from dicom_node.pipeline.pictures import NodePictures
    from dicom_node.score.picture_process import PictureProcess

    config = node.config
    made = NodePictures(
        node.engine,
        config.store.root / "pictures",
        PictureProcess(PICTURES),
        config.score.banks,
        node.files.require_space,
    )
    stop = threading.Event()

    def keep() -> None:
        swept = time.monotonic()
        while not stop.wait(_AHEAD_SECONDS):
            try:
                made.draw_ahead(node.files.instance_path)
                made.rest()
                if time.monotonic() - swept >= _SWEEP_SECONDS:
                    swept = time.monotonic()
                    made.sweep()
            except (NodeError, OSError) as error:
                reason = error.strerror if isinstance(error, OSError) else str(error)
                log.warning("the cache of pictures was not kept", extra={"reason": reason})

    thread = threading.Thread(target=keep, name="pictures", daemon=True)
    thread.start()
    try:
        yield made
    finally:
        stop.set()
        made.close()
        thread.join(_AHEAD_SECONDS)
        made.close()


@contextmanager
def serving_web(node: Node) -> Iterator[str]:
    """Serve the reading worklist inside the block; yields its address."""
    from dicom_node.node.desk import desk
    from dicom_node.web.app import create_app
    from dicom_node.web.server import served

    with ExitStack() as stack:
        drawn = stack.enter_context(pictures(node))
        made = stack.enter_context(desk(node, drawn))
        app = create_app(made, people(node), node.config.web)
        warming = threading.Thread(target=_warm_up, args=(made,), name="warm-up", daemon=True)
        warming.start()
        stack.callback(warming.join)
        yield stack.enter_context(served(app, node.config.web))


def _warm_up(made: NodeDesk) -> None:
    try:
        made.warm_up()
    except NodeError as error:
        log.warning("the first look at the pages will take longer", extra={"reason": str(error)})


@contextmanager
def serving_beside(node: Node) -> Iterator[None]:
    """Serve the reading worklist inside the block; where that fails, the block goes on without and the log says why.

    Receiving comes first: no port that is taken, and no certificate that has ended, may keep images out.
    """
    with ExitStack() as stack:
        try:
            stack.enter_context(serving_web(node))
        except NodeError as error:
            fields = {"reason": str(error)}
            log.error("the reading worklist is not served; receiving goes on", extra=fields)  # noqa: TRY400
        yield


def run_web(node: Node, stop: threading.Event) -> None:
    """Serve the reading worklist alone, until `stop` is set."""
    with serving_web(node):
        stop.wait()


def web_address(config: Config) -> str:
    """Return the address of the list, as far as the configuration says it; a proxy may have another."""
    web = config.web
    own = "localhost" if web.host in ("0.0.0.0", "::") else web.host  # noqa: S104 - compared, not bound
    host = web.host_names[0] if web.host_names else f"[{own}]" if ":" in own else own
    port = "" if web.trusted_proxies else f":{web.port}"
    return f"{'https' if web.secure else 'http'}://{host}{port}{web.base_path}/"
