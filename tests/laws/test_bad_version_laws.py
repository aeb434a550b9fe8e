"""Whatever a client writes beside one version, that version alone is unknown: what is known of all others stays what it was."""

from __future__ import annotations

import json
import shutil
import sqlite3
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mlflow_unlearn.adapters.registry import Registry, connect
from mlflow_unlearn.config import Settings
from mlflow_unlearn.lineage import ModelVersion, VersionLineage
from mlflow_unlearn.trace import Evidence, trace

GOOD, TUNED, BAD = (f"{number:032x}" for number in (1, 2, 3))
DEEP = 4000
NESTED = '{"models:/": ' * DEEP + "1" + "}" * DEEP
NINES = "9" * 5000
"""More digits than Python makes a number of."""
TABLES = ["model_versions", "model_version_tags", "registered_models", "inputs", "datasets", "logged_models", "logged_model_params", "tags", "params"]


@dataclass(frozen=True, kw_only=True)
class Bad:
    """What stands beside the bad version."""

    source: str = f"models:/m-{BAD}"
    run_id: str = BAD
    tags: dict[str, str] = field(default_factory=dict)
    run_tags: dict[str, str] = field(default_factory=dict)
    params: dict[str, str] = field(default_factory=dict)
    datasets: list[tuple[str, str, str, str]] = field(default_factory=list)
    """Name, digest, source type, source."""
    location: str = ""
    """Of its logged model; a folder with these files where it is empty."""
    mlmodel: str | None = None
    adapter: str | None = None


@dataclass(frozen=True)
class Store:
    """A good version, one that was made from it, and perhaps a bad one."""

    registry: Registry
    folder: Path

    @cached_property
    def before(self) -> dict[str, VersionLineage]:
        """What is known without the bad one."""
        self.fill(None)
        return self.lineages()

    def fill(self, bad: Bad | None) -> None:
        with sqlite3.connect(self.folder / "mlflow.db") as tables:
            for table in [*TABLES, "runs"]:
                tables.execute(f"delete from {table}")
            put = tables.execute
            put("insert into datasets values ('d', 0, 'data', 'md5-1', 'dvc', '{}', null, null)")
            for name, run in [("good", GOOD), ("tuned", TUNED), *([("bad", BAD)] if bad else [])]:
                put("insert into runs (run_uuid, experiment_id, lifecycle_stage, status) values (?, 0, 'active', 'FINISHED')", (run,))
                place = (bad.location if bad and name == "bad" else "") or str(self.folder / name)
                model = (f"m-{run}", 0, "m", place, 1, 1, 2, "active", None, run, None)
                put("insert into logged_models values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", model)
                put("insert into registered_models (workspace, name) values ('default', ?)", (name,))
                of = (name, bad.source, bad.run_id) if bad and name == "bad" else (name, f"models:/m-{run}", run)
                put("insert into model_versions (workspace, name, version, current_stage, source, run_id) values ('default', ?, 1, 'None', ?, ?)", of)
            put("insert into inputs values ('1', 'DATASET', 'd', 'RUN', ?, 0)", (GOOD,))
            put("insert into inputs values ('2', 'DATASET', 'd', 'RUN', ?, 0)", (TUNED,))
            put("insert into inputs values ('3', 'RUN_INPUT', ?, 'MODEL_INPUT', ?, 0)", (TUNED, f"m-{GOOD}"))
            if bad:
                self._beside(tables, bad)

    def _beside(self, tables: sqlite3.Connection, bad: Bad) -> None:
        put = tables.executemany
        put("insert into model_version_tags (workspace, name, version, key, value) values ('default', 'bad', 1, ?, ?)", bad.tags.items())
        put("insert into tags values (?, ?, ?)", [(*each, BAD) for each in bad.run_tags.items()])
        put("insert into params values (?, ?, ?)", [(*each, BAD) for each in bad.params.items()])
        put("insert into datasets values (?, 0, ?, ?, ?, ?, null, null)", [(f"bad-{n}", *each) for n, each in enumerate(bad.datasets)])
        put("insert into inputs values (?, 'DATASET', ?, 'RUN', ?, 0)", [(f"bad-{n}", f"bad-{n}", BAD) for n in range(len(bad.datasets))])
        shutil.rmtree(self.folder / "bad", ignore_errors=True)
        (self.folder / "bad").mkdir()
        for name, text in (("MLmodel", bad.mlmodel), ("adapter_config.json", bad.adapter)):
            if text is not None:
                (self.folder / "bad" / name).write_text(text)

    def lineages(self) -> dict[str, VersionLineage]:
        return {each.model.name: each for each in self.registry.lineages()}


@pytest.fixture(scope="module")
def store(mlflow_template: Path, tmp_path_factory: pytest.TempPathFactory) -> Store:
    folder = tmp_path_factory.mktemp("bad")
    shutil.copy(mlflow_template, folder / "mlflow.db")
    uri = f"sqlite:///{folder / 'mlflow.db'}"
    made = Store(connect(Settings(root=folder, tag_key_file=folder, ledger_uri="", tracking_uri=uri), "laws"), folder)
    assert made.before["tuned"].problem is None
    return made


def web(source: str) -> list[tuple[str, str, str, str]]:
    return [("web", "1", "http", source)]


UNDER_DVC = [("data", "md5-2", "dvc", "{}")]
KNOWN: dict[str, Bad] = {
    "too many digits of a base": Bad(run_tags={"unlearn.base_model": f"bad/{NINES}"}),
    "too many digits of a copy": Bad(source=f"models:/good/{NINES}"),
    "a dataset's source without end": Bad(datasets=web(NESTED)),
    "half a letter in a dataset's source": Bad(datasets=web('{"uri": "models:/\\ud800/1"}')),
    "a base with a name that is longer than a file's": Bad(params={"base_model": "a" * 300}, datasets=UNDER_DVC),
    "a path with more parts than a path has": Bad(params={"base_model": "/a" * 100_000}, datasets=UNDER_DVC),
    "an address that is none": Bad(source="s3://[x"),
    "a base at an address that is none": Bad(params={"base_model": "http://[x"}),
    "files at an address that is none": Bad(location="s3://[x", datasets=UNDER_DVC),
    "files at a path with a zero in it": Bad(location="file:///x%00y"),
    "an empty MLmodel": Bad(mlmodel="", datasets=[]),
    "an MLmodel of brackets": Bad(mlmodel="[" * 100_000, datasets=UNDER_DVC),
    "an MLmodel of lists": Bad(mlmodel="- " * 100_000, datasets=UNDER_DVC),
    "an MLmodel of an impossible day": Bad(mlmodel="metadata: {base_model: 9999-99-99}", datasets=UNDER_DVC),
    "an MLmodel that is larger than any": Bad(mlmodel="metadata: {x: '" + "x" * 5_000_000 + "'}", datasets=UNDER_DVC),
    "an MLmodel with more bases than any": Bad(
        mlmodel="metadata:\n" + "".join(f"  {n}.base_model: models:/good/1\n" for n in range(20_000)), datasets=UNDER_DVC
    ),
    "an adapter without end": Bad(adapter='{"base_model_name_or_path": ' * DEEP + "1" + "}" * DEEP, datasets=UNDER_DVC),
    "half a letter in an adapter": Bad(adapter='{"base_model_name_or_path": "\\ud800"}', datasets=UNDER_DVC),
    "a parent that is none": Bad(tags={"unlearn.parent": "x"}),
    "a run of another spelling": Bad(run_id="o'hara"),
}


@pytest.mark.parametrize("bad", KNOWN.values(), ids=KNOWN)
def test_one_bad_version_is_one_unknown_version(store: Store, bad: Bad):
    store.fill(bad)
    after = store.lineages()
    assert {name: after[name] for name in ("good", "tuned")} == store.before
    traced = trace(Evidence(requests=(), versions=tuple(after.values()), states={}, matches={}))
    assert ModelVersion(name="bad", version="1") in {line.model for line in traced.unknown}
    assert len((after["bad"].problem or "").encode()) < 5000


NASTY = ["models:/", "runs:/", "file://", "s3://", "http://[", "/", "good/1", "bad/1", "m-", BAD, NINES, "%00", "\0", "@", "a" * 300, *'[{":\n']
TEXTS = st.lists(st.sampled_from(NASTY) | st.text(st.characters(exclude_categories=["Cs"]), max_size=5), max_size=6).map("".join)
NAMED = ["unlearn.base_model", "unlearn.relation", "unlearn.parent", "unlearn.request", "unlearn.dvc.x", "unlearn.verdict.removal"]
DOCUMENTS = st.recursive(TEXTS | st.integers() | st.none(), lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3))
DATASETS = st.tuples(TEXTS, TEXTS, st.sampled_from(["dvc", "http", ""]), TEXTS | DOCUMENTS.map(json.dumps))
MODELS = st.builds(lambda metadata, flavors: json.dumps({"metadata": metadata, "flavors": flavors}), DOCUMENTS, DOCUMENTS)


@given(
    bad=st.builds(
        Bad,
        source=TEXTS.filter(lambda text: f"m-{GOOD}" not in text),
        run_id=st.just(BAD) | st.text(st.characters(exclude_categories=["Cs"]), max_size=20),
        tags=st.dictionaries(st.sampled_from(NAMED), TEXTS, max_size=3),
        run_tags=st.dictionaries(st.sampled_from(NAMED), TEXTS, max_size=3),
        params=st.dictionaries(st.sampled_from(["base_model", "x.resume_from_checkpoint", "other"]), TEXTS, max_size=3),
        datasets=st.lists(DATASETS, max_size=3, unique_by=lambda row: row[:2]),
        mlmodel=st.none() | TEXTS | MODELS,
        adapter=st.none() | TEXTS | DOCUMENTS.map(json.dumps) | TEXTS.map(lambda text: json.dumps({"base_model_name_or_path": text})),
    )
)
@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_stands_beside_one_version_the_others_stay_as_they_are(store: Store, bad: Bad):
    store.fill(bad)
    after = store.lineages()
    assert {name: after[name] for name in ("good", "tuned")} == store.before
    assert after["bad"].problem or after["bad"].datasets or after["bad"].ancestors
    lines = trace(Evidence(requests=(), versions=tuple(after.values()), states={}, matches={}))
    assert len([*lines.affected, *lines.clear, *lines.unknown]) == 3
