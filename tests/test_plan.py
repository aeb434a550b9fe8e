from __future__ import annotations

import json
import shlex

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlflow_unlearn.documents import encode
from mlflow_unlearn.lineage import ModelVersion, Trace, TracedVersion
from mlflow_unlearn.plan import plan
from mlflow_unlearn.records import Project

HOME = Project(name="p", repository="https://git.example/shop.git", folder="unlearn", model="m", dataset="d")


def line(version: str, model: str = "m", aliases: tuple[str, ...] = (), requests: tuple[str, ...] = ()) -> TracedVersion:
    return TracedVersion(model=ModelVersion(name=model, version=version), why=f"because {version}", aliases=aliases, requests=requests)


def traced(*affected: TracedVersion, **others: tuple[TracedVersion, ...]) -> Trace:
    return Trace(requests=("er-1",), affected=affected, **others)


@pytest.mark.parametrize(
    ("affected", "version", "because"),
    [
        ([line("1", aliases=("champion",)), line("2", aliases=("shadow",)), line("3")], "1", "alias champion"),
        ([line("1", aliases=("old",)), line("2", aliases=("shadow",)), line("3")], "2", "newest with an alias (shadow)"),
        ([line("1"), line("2"), line("3", requests=("er-1",))], "2", "newest affected"),
        ([line("1", requests=("er-1",)), line("2", requests=("er-1", "er-2"))], "2", "every one was made to forget"),
    ],
)
def test_what_is_in_use_is_unlearned_first_and_the_rest_is_named(affected: list[TracedVersion], version: str, because: str) -> None:
    (job,) = plan(traced(*affected), [HOME])
    assert (job.version, job.parent) == (ModelVersion(name="m", version=version), f"models:/m/{version}")
    assert because in job.because
    assert {job.version, *job.others} == {each.model for each in affected}


def test_a_job_says_where_and_what_to_run() -> None:
    (job,) = plan(traced(line("1")), [HOME, Project(name="q", repository="", folder="elsewhere", model="m", dataset="d")])
    assert (job.repository, job.folder, job.command) == (HOME.repository, "unlearn", "cd unlearn && dvc repro")


def test_a_model_without_a_project_gets_one_and_its_name_stays_one_word_of_the_shell() -> None:
    (job,) = plan(traced(line("1", model="a; rm -rf b")), [HOME])
    assert shlex.split(job.command) == ["mlflow-unlearn", "init", "unlearn-a-rm--rf-b", "--model", "a; rm -rf b"]
    assert (job.repository, job.folder) == ("", "")


def test_nothing_is_run_where_a_clear_version_forgot_every_request() -> None:
    forgot, half = line("2", requests=("er-1", "er-2")), line("3", requests=("er-2",))
    (job,) = plan(traced(line("1"), clear=(forgot, half)), [HOME])
    assert (job.forgotten_by, job.command) == ((forgot.model,), "")


def test_a_model_of_which_nothing_is_known_is_a_job_without_a_version() -> None:
    (job,) = plan(traced(unknown=(line("1"),), clear=(line("2", model="n"),)), [HOME])
    assert (job.version, job.command, [each.why for each in job.undecided]) == (None, "", ["because 1"])


LINES = st.lists(
    st.builds(line, st.sampled_from("123"), st.sampled_from("mno"), st.sampled_from([(), ("champion",)]), st.sampled_from([(), ("er-1",)])),
    max_size=6,
)


@given(LINES, LINES, LINES)
def test_no_affected_or_unknown_version_is_ever_dropped_and_jobs_are_json(affected, clear, unknown) -> None:
    jobs = plan(Trace(requests=("er-1",), affected=tuple(affected), clear=tuple(clear), unknown=tuple(unknown)), [HOME])
    assert [job.model for job in jobs] == sorted({each.model.name for each in (*affected, *unknown)})
    assert {v for job in jobs for v in (job.version, *job.others) if v} == {each.model for each in affected}
    assert {each.model for job in jobs for each in job.undecided} == {each.model for each in unknown}
    assert json.loads(json.dumps(encode(list(jobs))))[:1] == encode(list(jobs[:1]))
