"""What a person does with banks that are built: go back, compare, tidy up. Rows come back ready to print."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from sqlalchemy import Engine

from dicom_node.db import events
from dicom_node.db.engine import reading, writing
from dicom_node.domain.errors import BankError, CannotDecodeError, CannotUnderstandError
from dicom_node.queue import items
from dicom_node.score.backbone import Backbone
from dicom_node.score.bank_leftovers import building, clear, leftovers
from dicom_node.score.bank_store import BankStore
from dicom_node.score.files import read_image
from dicom_node.score.manifest import BankKind
from dicom_node.score.scoring import load_scorer
from dicom_node.store import reports


def roll_back(root: Path, engine: Engine, now: datetime) -> tuple[str, ...]:
    """Make active again what was active before; return its names.

    Raises
    ------
    BankError
        As `BankStore.rollback`; nothing changes then.
    """
    store = BankStore(root)
    before = store.active()
    names = store.rollback()
    with writing(engine) as conn:
        events.record(conn, now, "bank.rolledback", names=list(names), before=list(before))
    return names


def require(root: Path, name: str, kind: BankKind) -> None:
    """See that studies can be analysed: with the bank of that name, or with what is active where it is "".

    Parameters
    ----------
    kind
        That decides, of those that are active.

    Raises
    ------
    BankError
        If not; says what there is.
    """
    store = BankStore(root)
    there = ", ".join(store.names()) or "none; `dicom-node bank build` makes one"
    if name:
        if not store.path(name).is_dir():
            raise BankError(f"there is no bank {name}; there are: {there}")
        load_scorer(store.path(name))
        return
    active = store.active_hashes()
    for one, pinned in active.items():
        if (seen := store.verify(one)) != pinned:
            raise BankError(f"bank {one} has hash {seen}; {pinned} was activated: activate it again")
    if kind not in {store.manifest(one).kind for one in active}:
        raise BankError(
            f"no bank of kind {kind} is active, so nothing could be scored; `dicom-node bank activate NAME` "
            f"activates one (there are: {there}), or name one with --bank"
        )


def differences(root: Path, one: str, other: str) -> list[dict[str, Any]]:
    """Return the fields in which two manifests differ, each with both values.

    Raises
    ------
    BankError
        If there is no such bank or its manifest is damaged.
    """
    store = BankStore(root)
    left, right = (_flat(store.manifest(name).model_dump(mode="json")) for name in (one, other))
    return [
        {"field": field, one: left.get(field), other: right.get(field)}
        for field in [*left, *(field for field in right if field not in left)]
        if left.get(field) != right.get(field) and not field.startswith("files.")
    ]


def scores(root: Path, one: str, other: str, paths: Sequence[Path]) -> Iterator[dict[str, Any]]:
    """Score images against two banks, whatever their rules and populations say; yields a row for each image.

    Raises
    ------
    BankError
        If a bank or its weights are missing or damaged.
    """
    backbones: dict[tuple[str, str], Backbone] = {}
    store = BankStore(root)
    scorers = {name: load_scorer(store.path(name), backbones) for name in (one, other)}
    for path in paths:
        row: dict[str, Any] = {"image": path.name}
        for name, scorer in scorers.items():
            prep = scorer.bank.manifest.preprocessing
            try:
                grey, _ = read_image(path, window=prep.window, rescale=prep.rescale)
            except (CannotDecodeError, CannotUnderstandError) as error:
                row["error"] = str(error)
                break
            score = scorer.score_images([grey])[0]
            row[name] = {"value": score.value, "percentile": score.percentile, "above": score.above}
        yield row


def tidy(root: Path, engine: Engine, keep: int, now: datetime, *, remove: bool) -> list[dict[str, Any]]:
    """Say of every bank why it stays or that it can go; remove the latter if told to.

    A bank stays that is active, was in one of the last `keep` active sets, made a report that this node holds,
    or cannot be read (a person should look at it); while a build runs, every bank that was never active stays.

    Returns
    -------
    list of dict
        {"name", "goes": bool, "why"} for each bank, and for each thing that a dead build left.
    """
    store = BankStore(root)
    active = set(store.active())
    history = store.history()
    recent = {name for past in history[-keep:] for name in past} if keep > 0 else set()
    running, known = building(root), {name for past in history for name in past}
    rows = []
    for name in store.names():
        why = "is active" if name in active else f"was active lately (last {keep})" if name in recent else ""
        try:
            bank_hash = store.manifest(name).bank_hash
            if not why:
                with reading(engine) as conn:
                    why = "made reports" if reports.mentions_bank(conn, bank_hash) else ""
                    why = "is asked for by work that waits" if items.asks_for_bank(conn, name) else why
            if not why and running and name not in known:
                why = "a build is running and may have just made it"
        except BankError:
            why, bank_hash = why or "cannot be read", ""
        rows.append({"name": name, "goes": not why, "why": why or "neither active nor of any use since"})
        if remove and not why:
            store.remove(name)
            with writing(engine) as conn:
                events.record(conn, now, "bank.removed", name=name, bank_hash=bank_hash)
    for left in leftovers(root, now):
        goes = left.goes and (not remove or clear(left))
        rows.append({"name": str(left.path.relative_to(root)), "goes": goes, "why": left.why})
    return rows


def _flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, dict) and value:
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat
