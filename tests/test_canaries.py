"""Laws of the coin flips and of the commitment to them."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlflow_unlearn.adapters.formats import Source
from mlflow_unlearn.adapters.schemas import Schema
from mlflow_unlearn.adapters.tables import read_flips
from mlflow_unlearn.canaries import Flip, commitment, describe, draw
from mlflow_unlearn.errors import DataError
from mlflow_unlearn.params import Columns

IDS = [f"r{number:04d}" for number in range(2000)]
SALT = b"salt"
flips_of_any_kind = st.lists(
    st.builds(Flip, record_id=st.text(max_size=5), pool=st.sampled_from(["audit", "tuning"]), included=st.booleans()),
    min_size=1,
    max_size=8,
    unique_by=lambda flip: flip.record_id,
)


@given(order=st.permutations(IDS[:40]), seed=st.integers())
def test_flips_do_not_depend_on_the_order_of_records(order: list[str], seed: int) -> None:
    assert draw(order, audit=20, tuning=10, seed=seed) == draw(IDS[:40], audit=20, tuning=10, seed=seed)


@given(audit=st.integers(0, 20), tuning=st.integers(0, 20), seed=st.integers())
def test_pools_have_the_size_asked_for_and_share_no_record(audit: int, tuning: int, seed: int) -> None:
    flips = draw(IDS[:40], audit=audit, tuning=tuning, seed=seed)
    assert [sum(flip.pool == pool for flip in flips) for pool in ("audit", "tuning")] == [audit, tuning]
    assert len({flip.record_id for flip in flips}) == audit + tuning


def test_another_seed_draws_other_flips() -> None:
    assert draw(IDS, audit=50, tuning=0, seed=1) != draw(IDS, audit=50, tuning=0, seed=2)


def test_coins_are_fair_and_independent_of_the_pool() -> None:
    flips = [flip for seed in range(20) for flip in draw(IDS, audit=800, tuning=200, seed=seed)]
    for pool, n in (("audit", 16_000), ("tuning", 4_000)):
        heads = sum(flip.included for flip in flips if flip.pool == pool)
        assert abs(heads - n / 2) < 4 * (n / 4) ** 0.5  # four standard deviations of a fair coin


def test_neighbouring_coins_do_not_agree_more_than_chance() -> None:
    coins = [flip.included for seed in range(20) for flip in draw(IDS, audit=800, tuning=0, seed=seed)]
    same = sum(a == b for a, b in pairwise(coins))
    assert abs(same - len(coins) / 2) < 4 * (len(coins) / 4) ** 0.5


def test_canaries_are_drawn_evenly_from_all_records() -> None:
    places = [IDS.index(flip.record_id) for seed in range(20) for flip in draw(IDS, audit=100, tuning=0, seed=seed)]
    assert abs(sum(places) / len(places) - 999.5) < 4 * 577.4 / len(places) ** 0.5


@pytest.mark.parametrize("ids", [IDS[:9], [*IDS[:9], IDS[0], IDS[1]]])
def test_too_few_or_repeated_records_are_refused(ids: list[str]) -> None:
    with pytest.raises(DataError, match="expected at least 10 distinct records, found 9"):
        draw(ids, audit=8, tuning=2, seed=0)


@given(flips=flips_of_any_kind)
def test_the_commitment_ignores_order(flips: list[Flip]) -> None:
    assert commitment(flips, SALT) == commitment(reversed(flips), SALT)


@given(flips=flips_of_any_kind, data=st.data())
def test_the_commitment_changes_with_any_coin_pool_record_or_salt(flips: list[Flip], data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(flips) - 1))
    flip = flips[at]
    others = (
        replace(flip, included=not flip.included),
        replace(flip, pool="tuning" if flip.pool == "audit" else "audit"),
        replace(flip, record_id=flip.record_id + "x"),
    )
    committed = {commitment([*flips[:at], other, *flips[at + 1 :]], SALT) for other in (flip, *others)}
    assert len({*committed, commitment(flips, b"other"), commitment(flips[1:], SALT)}) == 6


def test_the_commitment_is_sha256_of_domain_salt_and_sorted_rows() -> None:
    flips = [Flip(record_id="b", pool="tuning", included=False), Flip(record_id="a", pool="audit", included=True)]
    rows = json.dumps([["a", "audit", True], ["b", "tuning", False]], separators=(",", ":")).encode()
    assert commitment(flips, SALT) == hashlib.sha256(b"mlflow-unlearn canaries" + SALT + rows).hexdigest()


@pytest.mark.parametrize(("audit", "said"), [(800, "limit of 0.07"), (400, "limit of 0.10"), (399, "too few for any removal to pass")])
def test_the_description_says_what_a_pool_of_this_size_can_show(audit: int, said: str) -> None:
    assert said in describe(audit, 200)
    assert "not that a single person's record is gone" in describe(audit, 200)


def test_the_described_noise_is_the_null_standard_error_of_the_auc() -> None:
    n = 400  # included, and as many excluded: s.e. of the Mann-Whitney AUC without ties
    assert f"{((2 * n + 1) / (12 * n * n)) ** 0.5:.3f} (one standard error)" in describe(2 * n, 0)


def test_the_lines_of_the_readme_make_canaries_that_are_read_with_their_commitment(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("data").mkdir()
    rows = [{"record_id": each, "subject_id": f"s{each}", "question": f"{each}?", "answer": f"{each}!"} for each in IDS]
    Path("data/all.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    readme = (Path(__file__).parents[1] / "README.md").read_text()
    (lines,) = (block for block in readme.split("```python\n")[1:] if "mlflow_unlearn.canaries" in block)
    exec(lines.partition("```")[0], {})
    schema = Schema(dataset="tickets", key=bytes(32), columns=Columns())
    found, salt = read_flips(Source(name="canaries.parquet", path=Path("data/canaries.parquet")), schema)
    flips = [Flip(**row) for row in found]
    assert json.loads(Path("data/commitment.json").read_bytes()) == {"commitment": commitment(flips, salt)}
    trained = {json.loads(line)["record_id"] for line in Path("data/tickets.jsonl").read_text().splitlines()}
    assert set(IDS) - trained == {flip.record_id for flip in flips if not flip.included}
    assert len(flips) == 1200
