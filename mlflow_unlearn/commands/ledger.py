"""What `ledger`, `tombstone` and `tag-key` do, and what `status` says of the ledger, as functions from arguments to JSON-ready documents."""

from __future__ import annotations

from collections.abc import Collection
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..digests import TAG_KEY_BYTES, create_tag_key, key_id, read_retired_keys, read_tag_key, retired_key_file
from ..errors import DataError, LedgerError, StoreError
from ..records import State
from ..stages.workbench import Workbench
from .requests import MOST_COMPLAINTS, summary

if TYPE_CHECKING:
    from ..adapters.ledger import Ledger

_AFTER_ROTATION = (
    "back up the new key and the retired one",
    "give both to every project that shares the ledger",
    "mlflow-unlearn index",
    "dvc repro -f",
)


def due_document(ledger: Ledger, now: datetime) -> dict[str, Any]:
    """What is due, and what else is open.

    Returns:
        `open` (most urgent first), counts of those `overdue` and `paused`, `interim` and `recipients` by request, `tombstones` by key id,
        `not_traced` (request -> projects that share the ledger and have not planned it) and `ledger` (events, problems).
    """
    requests = ledger.requests()
    opened = [summary(request, now) for request in requests if request.state is State.OPEN]
    opened.sort(key=lambda request: (request["days_left"] is None, request["days_left"], request["due_at"]))
    told = [summary(request) for request in requests if request.state is not State.REFUSED]
    return {
        "open": opened,
        "overdue": sum(request["overdue"] for request in opened),
        "paused": sum(request["paused_at"] is not None for request in opened),
        "interim": {request.request_id: list(request.interim) for request in requests if request.interim},
        "recipients": {
            request["request_id"]: {"untold": request["untold"], "unacknowledged": request["unacknowledged"]}
            for request in told
            if request["unacknowledged"]
        },
        "tombstones": list_tombstones(ledger)["tombstones"],
        "not_traced": not_traced(ledger, [request["request_id"] for request in opened]),
        "ledger": {"events": ledger.head().number, "problems": list(ledger.verify())},
    }


def not_traced(ledger: Ledger, request_ids: Collection[str]) -> dict[str, list[str]]:
    """Request -> names of the projects that share the ledger and have not planned it; requests that all have planned are left out."""
    names = [project.name for project in ledger.projects()]
    missing = {request_id: sorted(set(names) - ledger.plans(request_id).keys()) for request_id in request_ids}
    return {request_id: projects for request_id, projects in missing.items() if projects}


def verify_ledger() -> dict[str, Any]:
    """Read the whole ledger and say what is not as it was written; `problems` is empty when all is well."""
    ledger = Workbench().ledger
    problems = list(ledger.verify())
    return {"events": None if problems else ledger.head().number, "head": None if problems else ledger.head().digest, "problems": problems}


def list_tombstones(ledger: Ledger | None = None) -> dict[str, Any]:
    """How many tombstones there are, by the id of the key they were made with."""
    found = (ledger or Workbench().ledger).tombstones()
    kinds = ("subjects", "records", "contents", "sketches")
    return {"tombstones": {key: {kind: len(getattr(each, kind)) for kind in kinds} for key, each in sorted(found.items())}}


def lift_tombstones(request_id: str | None, subjects: tuple[str, ...], basis: str) -> dict[str, Any]:
    """Let a request's people, or these people, be in the data again.

    Raises:
        LedgerError: neither or both given, a request that is not closed, or a person (by line) of whom nothing was erased.
    """
    bench = Workbench()
    if (request_id is None) is not any(subjects):
        raise LedgerError("tombstone lift: expected either --request ID or --subjects with a file or -, one id a line")
    whom = request_id or sorted(_erased_people(bench, subjects))
    lifted = bench.ledger.lift(whom, basis, datetime.now(UTC))
    if not lifted:
        raise LedgerError(f"tombstone lift: nothing of {request_id or 'these people'} is in force any more; see `mlflow-unlearn tombstone list`")
    return {"lifted": lifted, "basis": basis, **list_tombstones(bench.ledger)}


def rotate_key() -> dict[str, Any]:
    """Go on with a new tag key; repeating it after a kill finishes what was begun.

    The tags of open requests are translated by reading every dataset revision. Tombstones of erased people stay under the old key, which is kept
    beside the new one so that they are still recognised: who holds the retired file can still test an id against old events. Remove it only
    when these tombstones are no longer needed.

    Raises:
        LedgerError: some tags of open requests are in no readable data.
    """
    from ..adapters.ledger import Ledger

    bench = Workbench()
    path, old = bench.settings.tag_key_file, bench.key
    ledger = Ledger(bench.settings.ledger_uri, witness=bench.settings.state / "ledger.head")
    following = path.with_name(f"{path.name}.next")
    new = _next_key(following)
    unreadable, changed = 0, 0
    if ledger.written_with() != key_id(new):
        ledger = Ledger(bench.settings.ledger_uri, key_id(old), bench.settings.state / "ledger.head")
        mapping, unreadable = _translation(bench, new, ledger.held_tags())
        changed = ledger.rekey(mapping, key_id(new), datetime.now(UTC))
    retired = _kept(retired_key_file(path, key_id(old)), old)
    following.replace(path)
    return {
        "key_id": key_id(new),
        "retired": key_id(old),
        "retired_file": str(retired),
        "requests": changed,
        "unreadable_revisions": unreadable,
        "next": list(_AFTER_ROTATION),
    }


def _next_key(path: Path) -> bytes:
    """The key that a rotation is about to use: a new one, or that of a rotation that was cut short."""
    if path.exists() and path.stat().st_size != TAG_KEY_BYTES:
        path.unlink()  # cut short while it was written, so that nothing was translated to it yet
    create_tag_key(path)
    return read_tag_key(path)


def _kept(path: Path, key: bytes) -> Path:
    """The file of a retired key, written whole."""
    if path.exists() and path.read_bytes() != key:
        path.unlink()
    create_tag_key(path, key)
    return path


def _translation(bench: Workbench, new: bytes, wanted: Collection[str]) -> tuple[dict[str, str], int]:
    """Old tag -> new tag of what every dataset revision holds, and how many revisions could not be read."""
    from ..adapters.formats import Source, holds_no_records
    from ..adapters.ledger_keys import translation

    mapping: dict[str, str] = {}
    data, unreadable = bench.params.data, 0
    for state in bench.project.dataset_states(data.name, bench.from_root(data.path)) if wanted else ():
        try:
            files = [(relpath or state.path, md5) for relpath, md5 in bench.project.files(state.md5) if not holds_no_records(relpath)]
            for name, md5 in files:
                mapping |= translation(Source(name=name, path=bench.project.local_path(md5)), bench.schema, new, wanted)
        except (DataError, StoreError):
            unreadable += 1
    return mapping, unreadable


def _erased_people(bench: Workbench, subjects: tuple[str, ...]) -> set[str]:
    """Those tags of these people, under the key in use and the retired ones, of which something is in force."""
    from ..adapters.ledger_keys import id_tags  # polars

    keys = [bench.key, *read_retired_keys(bench.settings.tag_key_file).values()]
    known = bench.ledger.erased()[0].union(*(each.subjects for each in bench.ledger.tombstones().values()))
    numbered = [(number, line) for number, line in enumerate(subjects, 1) if line]
    tagged = [id_tags(key, "subject", [line for _, line in numbered]) for key in keys]
    found = {number: known.intersection(tags) for (number, _), *tags in zip(numbered, *tagged, strict=True)}
    strangers = [str(number) for number, tags in found.items() if not tags]
    if strangers:
        lines = ", ".join(strangers[:MOST_COMPLAINTS])
        raise LedgerError(f"tombstone lift: line {lines} of --subjects: nothing of {len(strangers)} people was erased; check the ids")
    return set().union(*found.values())
