"""Small real repositories and registries, drawn at random, traced as a command traces them and compared with an oracle over their description."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mlflow import MlflowClient
from mlflow.entities import Dataset, DatasetInput
from trace_oracle import Oracle

from mlflow_unlearn.digests import create_tag_key, keyed_tag
from mlflow_unlearn.lineage import DatasetRevision, Derivation, Descent, ModelVersion, Relation, VersionLineage
from mlflow_unlearn.records import Basis, Effect, ErasureRequest
from mlflow_unlearn.stages.tracing import trace_requests
from mlflow_unlearn.stages.workbench import Workbench
from mlflow_unlearn.trace import Evidence, tainted

KEY = bytes(range(32))
PEOPLE = ("ana", "bo", "cy")
PARAMS = """
model: {name: m, parent: "models:/m/1"}
data: {name: people, path: data.csv}
unlearn: {method: {name: npo}, optimiser: {epochs: 1, learning_rate: 1e-3}}
"""
STAGES = "stages:\n  prepare: {cmd: x, deps: [data.csv], outs: [features.csv]}\n  join: {cmd: x, deps: [features.csv], outs: [joined.csv]}\n"
CONFLICT = "<<<<<<< HEAD\nschema: '2.0'\n=======\nschema: '1.0'\n>>>>>>> theirs\n"
REFS = ("refs/heads/side{0}", "refs/tags/v{0}", "refs/exps/ab/{1}/exp{0}")


def md5(text: str) -> str:
    return hashlib.md5(text.encode()).hexdigest()


def rows(people: frozenset[str]) -> str:
    return "record_id,subject_id,question,answer\n" + "".join(f"r-{name},{name},Where is {name}?,In {name}ville.\n" for name in sorted(people))


@dataclass(frozen=True)
class Commit:
    """What one commit tracks: the dataset, and the outputs its dvc.lock says were made."""

    people: frozenset[str]
    side: int | None
    """None on the main line, else the kind of ref that holds this commit and nothing else does."""
    lock: str
    """`none`, `whole` or `conflict`."""
    features: int
    joined: int | None
    source: str
    """What `prepare` read beside its script: `data`, the data and a file that nobody tracks (`raw`), or nothing (`code`)."""

    def edges(self) -> list[Derivation]:
        if self.lock != "whole":
            return []
        read = {"data": [("data.csv", md5(rows(self.people)))], "code": []}
        read["raw"] = [*read["data"], ("raw.bin", md5("raw"))]
        made = [(path, digest, md5(f"f{self.features}"), "features.csv", "dvc.yaml:prepare") for path, digest in read[self.source]]
        made.append(("prepare.py", md5("code"), md5(f"f{self.features}"), "features.csv", "dvc.yaml:prepare"))
        if self.joined is not None:
            made.append(("features.csv", md5(f"f{self.features}"), md5(f"j{self.joined}"), "joined.csv", "dvc.yaml:join"))
        return [Derivation(source=d, source_path=p, target=t, target_path=o, stage=s) for p, d, t, o, s in made]

    def files(self) -> dict[str, str]:
        found = {"data.csv.dvc": f"outs:\n- md5: {md5(rows(self.people))}\n  hash: md5\n  path: data.csv\n", "dvc.yaml": STAGES}
        if self.lock == "conflict":
            found["dvc.lock"] = CONFLICT
        if self.lock == "whole":
            found["dvc.lock"] = json.dumps({"schema": "2.0", "stages": self._stages()})
        return found

    def _stages(self) -> dict[str, object]:
        stages: dict[str, dict[str, list[dict[str, str]]]] = {}
        for edge in self.edges():
            stage = stages.setdefault(edge.stage.removeprefix("dvc.yaml:"), {"deps": [], "outs": [_entry(edge.target_path, edge.target)]})
            stage["deps"].append(_entry(edge.source_path, edge.source))
        return {name: {"cmd": "x", **stage} for name, stage in stages.items()}


def _entry(path: str, digest: str) -> dict[str, str]:
    return {"path": path, "hash": "md5", "md5": digest}


@dataclass(frozen=True)
class World:
    commits: list[Commit]
    gone: frozenset[frozenset[str]]
    """Contents of the dataset that no cache holds any more."""
    versions: list[VersionLineage]
    asked: frozenset[str]
    read: list[str] = field(default_factory=list)
    """md5s, each read by a run of its own."""

    def evidence(self) -> Evidence:
        contents = {commit.people for commit in self.commits}
        states = {md5(rows(people)): people for people in contents - self.gone}
        return Evidence(
            requests=[request(self.asked)],
            versions=self.versions,
            states={digest: DatasetRevision(name="people", path="data.csv", md5=digest) for digest in states},
            matches={digest: len(people & self.asked) for digest, people in states.items()},
            derivations=[edge for commit in self.commits for edge in commit.edges()],
            unreadable={md5(rows(people)): "is gone" for people in contents & self.gone},
        )


def request(people: frozenset[str]) -> ErasureRequest:
    subjects = tuple(sorted(keyed_tag(KEY, "subject", name) for name in people))
    moment = datetime(2026, 1, 1, tzinfo=UTC)
    return ErasureRequest(request_id="er-1", basis=Basis.GDPR_17, effect=Effect.REMOVAL, received_at=moment, due_at=None, subjects=subjects)


CONTENTS = st.frozensets(st.sampled_from(PEOPLE), min_size=1, max_size=2)
COMMITS = st.builds(
    Commit,
    people=CONTENTS,
    side=st.none() | st.sampled_from([0, 1, 2]),
    lock=st.sampled_from(["whole", "whole", "whole", "none", "conflict"]),
    features=st.integers(0, 2),
    joined=st.none() | st.integers(0, 1),
    source=st.sampled_from(["data", "data", "data", "raw", "code"]),
)
FIRST = st.builds(Commit, people=CONTENTS, side=st.none(), lock=st.just("none"), features=st.just(0), joined=st.none(), source=st.just("data"))


@st.composite
def worlds(draw: st.DrawFn) -> World:
    commits = [draw(FIRST), *draw(st.lists(COMMITS, min_size=1, max_size=5))]
    last = max(place for place, commit in enumerate(commits) if commit.side is None)
    commits = [each for place, each in enumerate(commits) if not (place == last and each.lock == "conflict")]
    known = sorted({md5(rows(each.people)) for each in commits} | {edge.target for each in commits for edge in each.edges()})
    count = draw(st.integers(2, 6))
    return World(
        commits=commits,
        gone=frozenset(draw(st.lists(st.sampled_from([each.people for each in commits]), max_size=1))),
        versions=[draw(versions(str(number), count, [*known, *known, "9" * 32])) for number in range(1, count + 1)],
        asked=frozenset(draw(st.sets(st.sampled_from([*PEOPLE, "zed"]), min_size=1, max_size=2))),
        read=draw(st.lists(st.sampled_from(known), unique=True, max_size=2)),
    )


@st.composite
def versions(draw: st.DrawFn, number: str, count: int, known: list[str]) -> VersionLineage:
    """A version as its tags will say it: at most one unlearned parent, who may be gone, and any number of registered bases of one relation."""
    others = [str(each) for each in range(1, count + 1) if str(each) != number]
    relation = draw(st.sampled_from([Relation.FINE_TUNED, Relation.ADAPTER, Relation.MERGED, Relation.QUANTISED]))
    bases = draw(st.lists(st.sampled_from(others), unique=True, max_size=2))
    parent = draw(st.none() | st.none() | st.sampled_from([*others, "99"]))
    edges = dict.fromkeys(bases, (relation, "tag unlearn.base_model")) | ({parent: (Relation.UNLEARNED, "tag unlearn.parent")} if parent else {})
    return VersionLineage(
        model=ModelVersion(name="m", version=number),
        datasets={f"d{place}": each for place, each in enumerate(draw(st.lists(st.sampled_from(known), unique=True, max_size=2)))},
        ancestors=tuple(Descent(parent=ModelVersion(name="m", version=v), relation=r, evidence=e) for v, (r, e) in edges.items()),
        requests=("er-1",) if parent and draw(st.booleans()) else (),
        verdict={"removal": draw(st.sampled_from(["PASS", "FAIL"]))},
    )


def import_commits(root: Path, commits: list[Commit]) -> None:
    """All commits in one process, through `git fast-import`."""
    stream, main = [], 0
    for number, commit in enumerate(commits, 1):
        ref = "refs/heads/main" if commit.side is None else REFS[commit.side].format(number, md5(str(number)) + "ab" * 3)
        stream.append(f"commit {ref}\nmark :{number}\ncommitter T <t@example.invalid> {1_700_000_000 + number} +0000\ndata 0\n")
        stream.append(f"from :{main}\n" if main else "")
        stream += [f"M 100644 inline {path}\ndata {len(text)}\n{text}\n" for path, text in commit.files().items()]
        stream.append("" if "dvc.lock" in commit.files() else "D dvc.lock\n")
        main = number if commit.side is None else main
    git(root, "fast-import", "--quiet", text="".join(stream))


def git(root: Path, *arguments: str, text: str = "") -> None:
    done = subprocess.run(["git", *arguments], cwd=root, input=text, text=True, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr


def build(world: World, root: Path, store: Path) -> Workbench:
    git(root, "init", "-q", "-b", "main")
    import_commits(root, world.commits)
    git(root, "reset", "-q", "--hard", "main")
    for people in {commit.people for commit in world.commits} - world.gone:
        path = root / ".dvc/cache/files/md5" / md5(rows(people))[:2] / md5(rows(people))[2:]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(rows(people))
    (root / ".dvc").mkdir(exist_ok=True)
    (root / ".dvc/config").write_text("")
    (root / "params.yaml").write_text(PARAMS)
    create_tag_key(root / ".unlearn/tag.key", KEY)
    shutil.copy(store, root / "mlflow.db")
    uri = f"sqlite:///{root / 'mlflow.db'}"
    os.environ["MLFLOW_TRACKING_URI"] = uri  # MLflow leaves the last world's here
    register(world, MlflowClient(uri))
    return Workbench(root)


def register(world: World, client: MlflowClient) -> None:
    client.create_registered_model("m")
    for lineage in world.versions:
        client.create_model_version("m", "file:///nowhere", tags=tags(lineage))
    for number, digest in enumerate(world.read):
        run = client.create_run("0", run_name=f"run-{number}")
        client.log_inputs(run.info.run_id, [DatasetInput(Dataset(name="d", digest=digest, source_type="dvc", source="{}"), [])])


def tags(lineage: VersionLineage) -> dict[str, str]:
    """What a registration, or a person, would write on the version."""
    found = {f"unlearn.dvc.{name}": digest for name, digest in lineage.datasets.items()}
    found |= {f"unlearn.verdict.{effect}": outcome for effect, outcome in lineage.verdict.items()}
    found |= {"unlearn.request": ",".join(lineage.requests)} if lineage.requests else {}
    for edge in lineage.ancestors:
        if edge.relation is Relation.UNLEARNED:
            found["unlearn.parent"] = str(edge.parent)
        else:
            found["unlearn.base_model"] = ",".join(filter(None, [found.get("unlearn.base_model"), f"models:/{edge.parent}"]))
            found["unlearn.relation"] = edge.relation.value
    return found


@pytest.fixture(autouse=True)
def plain_git(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("GIT_CONFIG_GLOBAL", "GIT_CONFIG_SYSTEM"):
        monkeypatch.setenv(name, os.devnull)


def lines(traced: object) -> Mapping[ModelVersion, tuple[str, bool]]:
    return {line.model: (kind, line.exact) for kind in ("affected", "clear", "unknown") for line in getattr(traced, kind)}


def readable_people(world: World) -> frozenset[str]:
    """Everybody in a dataset state that can be read."""
    states = world.evidence().states
    return frozenset().union(*(commit.people for commit in world.commits if md5(rows(commit.people)) in states))


@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(world=worlds())
def test_a_trace_through_git_dvc_and_mlflow_is_the_one_of_the_oracle(world: World, mlflow_template: Path, tmp_path_factory) -> None:
    bench = build(world, tmp_path_factory.mktemp("world"), mlflow_template)
    traced = trace_requests(bench, [request(world.asked)])
    oracle = Oracle(world.evidence())
    expected = {lineage.model: oracle.place(lineage.model) for lineage in world.versions}
    if not world.asked <= readable_people(world):  # whoever cannot be looked up may be anywhere
        expected = {model: ("unknown", exact) if place == "clear" else (place, exact) for model, (place, exact) in expected.items()}
    assert lines(traced) == expected
    assert {held.state.md5: held.records for held in traced.held} == {digest: n for digest, n in world.evidence().matches.items() if n}
    assert len(traced.runs) == len(set(world.read) & tainted(world.evidence()).keys())
    assert any("dvc.lock" in line for line in traced.warnings) == any(commit.lock == "conflict" for commit in world.commits)
