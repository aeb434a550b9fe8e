"""What the `power` command does: the pool of the project here, one that is given, or a table of sizes, as a JSON-ready document."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .. import stats
from ..config import load_params, load_policy
from ..documents import encode
from ..errors import ConfigError, DataError, UnlearnError
from ..params import DataParams, EvaluateParams, Params
from ..policy import Policy
from ..power import SIZES, WANTED, Judged, Power, power, smallest_pool


@dataclass(frozen=True, kw_only=True)
class Pool:
    """Audit canaries of a project, and how many records they were drawn from."""

    included: int
    excluded: int
    records: int
    """Records that are trained on or are kept from it by their coin."""


def show_power(folder: Path, canaries: Sequence[int] = (), attempt: int = 1, records: int | None = None) -> dict[str, Any]:
    """What canary pools can show under the policy of a folder, or under the default one. Nothing is opened, trained or written.

    Args:
        folder: with params.yaml and policy.yaml, or without.
        canaries: sizes asked about, included plus excluded; none: the project's own pool, or a table.
        attempt: which attempt the limits are for, counted from 1.
        records: of the dataset, for what a pool costs; default: the project's.

    Returns:
        `pool` (None where there is none), `judged`, `policy` (margins and n_min), `sizes` (a `Power` each, with `share_never_trained`), `wanted`,
        `smallest` (None where no size will do) and `notes`.

    Raises:
        ConfigError: params.yaml or policy.yaml is wrong, or there are fewer records than canaries.
    """
    params = load_params(folder / "params.yaml") if (folder / "params.yaml").exists() else None
    policy, notes = load_policy(folder / "policy.yaml"), []
    pool, judged = None, _judged(params, policy, attempt)
    try:
        pool = _pool(folder, params.data) if params else None
    except (UnlearnError, OSError) as error:
        notes.append(f"the project's pool could not be read: {error}")
    wanted = tuple(canaries) or ((pool.included + pool.excluded,) if pool else SIZES)
    of = records if records is not None else pool.records if pool else None
    if of is not None and of < max(wanted):
        raise ConfigError(f"power: {max(wanted)} canaries cannot be drawn from {of} records; ask for fewer, or correct --records")
    found = [power(size, policy, judged) for size in wanted]
    return {
        "pool": encode(pool) if pool else None,
        "judged": encode(judged),
        "policy": {"n_min": policy.n_min, "auc_margin": dict(policy.auc_margin), "calibrated_gap": dict(policy.calibrated_gap)},
        "sizes": [{**encode(each), "share_never_trained": each.never_trained / of if of else None} for each in found],
        "wanted": WANTED,
        "smallest": smallest_pool(policy, judged),
        "notes": [*notes, *_notes(found, policy, judged)],
    }


def _judged(params: Params | None, policy: Policy, attempt: int) -> Judged:
    attacks = (params.evaluate if params else EvaluateParams()).attacks
    return Judged(attacks=max(1, len(attacks)), states=len({"fp32", *policy.deployed_precisions}) + 1, attempt=attempt)


def _pool(folder: Path, data: DataParams) -> Pool | None:
    """Counts of the files as they lie in the workspace; None where params.yaml names no canaries."""
    if data.canaries is None:
        return None
    if not (folder / data.canaries).is_file():
        raise DataError(f"{data.canaries}: not in the workspace; bring it back with `dvc checkout` or make it")
    from ..adapters.formats import Source, holds_no_records, read_file  # local: polars is slow to import, and most askers have no pool yet
    from ..adapters.schemas import Schema
    from ..adapters.tables import read_flips

    flips, _ = read_flips(Source(name=data.canaries, path=folder / data.canaries), Schema(dataset=data.name, columns=data.columns, key=b""))
    coins = [bool(flip["included"]) for flip in flips if flip["pool"] == "audit"]
    kept = sum(not flip["included"] for flip in flips)
    files = sorted(path for path in (folder / data.path, *(folder / data.path).rglob("*")) if path.is_file() and not holds_no_records(path.name))
    rows = sum(read_file(Source(name=path.name, path=path), (data.columns, *data.earlier_columns)).height for path in files)
    return Pool(included=sum(coins), excluded=len(coins) - sum(coins), records=rows + kept)


def _notes(found: Sequence[Power], policy: Policy, judged: Judged) -> list[str]:
    """What the figures rest on and what they leave out."""
    few = [each.canaries for each in found if each.auc_margin is None or each.gap_margin is None]
    blind = [each.canaries for each in found if each.detectable_epsilon < policy.control_epsilon]
    said = {
        f"{_listed(few)}: too few for anything to pass (n_min {policy.n_min}); the verdict is FAIL or INCONCLUSIVE": few,
        f"{_listed(blind)}: even a perfect attack shows less than the control epsilon of {policy.control_epsilon:g}": blind,
        f"attempt {judged.attempt} has no limits ({stats.ATTEMPTS} have): use a model trained with a fresh pool": judged.attempt > stats.ATTEMPTS,
    }
    return [
        *(words for words, holds in said.items() if holds),
        f"AUCs of the {judged.tests} tests are taken to correlate by {judged.correlation:g}, and a canary's calibrated loss to spread by "
        f"{judged.spread:g} of the parent's gap: both measured on a 283 k-parameter model, others may differ",
        "a larger pool that reaches the next margin of the policy may pass less often than a smaller one; utility and paraphrases are not in it",
    ]


def _listed(sizes: Sequence[int]) -> str:
    return ", ".join(map(str, sizes)) + " canaries"
