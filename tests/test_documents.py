from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlflow_unlearn import config, lineage, records
from mlflow_unlearn.documents import decode, encode, moment
from mlflow_unlearn.errors import ConfigError

tags = st.text("0123456789abcdef", min_size=32, max_size=32)
moments = st.datetimes(datetime(2000, 1, 1), datetime(2100, 1, 1)).map(lambda t: t.replace(microsecond=0, tzinfo=UTC))
requests = st.builds(
    records.ErasureRequest,
    request_id=st.text(min_size=1),
    basis=st.sampled_from(records.Basis),
    effect=st.sampled_from(records.Effect),
    received_at=moments,
    due_at=st.none() | moments,
    state=st.sampled_from(records.State),
    subjects=st.lists(tags).map(tuple),
    records=st.lists(tags).map(tuple),
)
versions = st.builds(lineage.ModelVersion, name=st.text(min_size=1), version=st.integers(1, 99).map(str))
traces = st.builds(
    lineage.Trace,
    requests=st.lists(st.text()).map(tuple),
    affected=st.lists(st.builds(lineage.TracedVersion, model=versions, why=st.text(), records=st.integers(0))).map(tuple),
    parent=st.none() | st.builds(lineage.Parent, model=versions, tensor_digest=tags, datasets=st.just(())),
)


@given(requests)
def test_a_request_survives_the_round_trip(request_):
    assert decode(records.ErasureRequest, encode(request_), "x") == request_


@given(traces)
def test_a_trace_survives_the_round_trip(trace):
    assert decode(lineage.Trace, encode(trace), "x") == trace


def test_policy_defaults_survive_the_round_trip():
    assert decode(config.Policy, encode(config.Policy()), "x") == config.Policy()


@dataclass(frozen=True, kw_only=True)
class Oven:
    temperature: float
    shelf: int = 2
    lit: bool = False


def test_every_complaint_is_listed_not_the_first():
    with pytest.raises(ConfigError) as caught:
        decode(Oven, {"temprature": 1, "shelf": "two", "lit": 1}, "oven.yaml")
    text = str(caught.value)
    assert "did you mean 'temperature'?" in text
    assert "oven.yaml.shelf: expected a whole number, found 'two' (str)" in text
    assert "missing key 'temperature'" in text
    assert "lit: expected true or false" in text


def test_text_that_looks_like_a_number_is_refused():
    with pytest.raises(ConfigError, match=r"temperature: expected a number, found '1e-5' \(str\)"):
        decode(Oven, {"temperature": "1e-5"}, "oven.yaml")


def test_a_whole_number_counts_as_a_number():
    assert decode(Oven, {"temperature": 3}, "x") == Oven(temperature=3.0)


def test_a_moment_is_written_in_utc():
    assert moment(datetime(2026, 11, 24, 19, 0, tzinfo=timezone(timedelta(hours=1)))) == "2026-11-24T18:00:00Z"


def test_a_naive_moment_is_refused():
    with pytest.raises(ConfigError, match="no time zone"):
        moment(datetime(2026, 11, 24))
