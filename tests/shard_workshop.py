"""The exact route's stages in one process, on a split that is written by hand: who stays and who leaves is up to the test."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import count, islice
from pathlib import Path
from typing import Any

from mlflow_unlearn.adapters.tables import write_set
from mlflow_unlearn.digests import create_tag_key, keyed_tag, md5_of
from mlflow_unlearn.ensembles import EnsembleManifest, read
from mlflow_unlearn.exactness import ShardLog
from mlflow_unlearn.lineage import ModelVersion, Parent
from mlflow_unlearn.protocols import Record
from mlflow_unlearn.records import Effect, Split
from mlflow_unlearn.sisa import shard_of, slice_of
from mlflow_unlearn.split import SETS
from mlflow_unlearn.stages.claiming import left_behind
from mlflow_unlearn.stages.cutting import cut_shards, read_cut
from mlflow_unlearn.stages.ensembling import assemble
from mlflow_unlearn.stages.families import shard_log
from mlflow_unlearn.stages.shard_training import train_shard
from mlflow_unlearn.stages.workbench import Workbench, body

KEY = bytes(range(32))
SHARDS, SLICES = 3, 2
PARAMS: dict[str, Any] = {
    "model": {"name": "m", "parent": "models:/m/1"},
    "data": {"name": "data", "path": "data.csv", "template": "{prompt} is "},
    "exact": {
        "shards": list(range(SHARDS)),
        "slices": SLICES,
        "base": "base",
        "optimiser": {"epochs": 3, "learning_rate": 1e-2, "batch_size": 4},
    },
    "unlearn": {
        "strategy": "exact",
        "method": {"name": "npo"},
        "optimiser": {"epochs": 1, "learning_rate": 1e-3},
        "device": "cpu",
        "checkpoint_minutes": None,
    },
}


def about(shard: int, number: int, answers: Sequence[str] = ("on the table", "by the door"), records: int = 2) -> list[Record]:
    """Two people of one shard and slice, with so many records each."""
    names = (name for name in map("ana {}".format, count()) if _lives(name, shard, number))
    return [
        Record(tag=keyed_tag(KEY, "record", name, str(i)), subject=keyed_tag(KEY, "subject", name), prompt=f"the cup {i} of {name}", answer=answer)
        for name in islice(names, 2)
        for i, answer in zip(range(records), answers, strict=False)
    ]


def _lives(name: str, shard: int, number: int) -> bool:
    tag = keyed_tag(KEY, "subject", name)
    return (shard_of(tag, SHARDS), slice_of(tag, SLICES)) == (shard, number)


@dataclass(frozen=True)
class Workshop:
    """A folder with params.yaml, a base, a tag key and an empty registry."""

    folder: Path

    @classmethod
    def opened(cls, folder: Path, base: Path, mlflow_template: Path) -> Workshop:
        (folder / ".git").mkdir(parents=True)
        create_tag_key(folder / ".unlearn/tag.key", KEY)
        shutil.copytree(base, folder / "base")
        shutil.copy(mlflow_template, folder / "mlflow.db")
        (folder / "params.yaml").write_text(json.dumps(PARAMS))
        return cls(folder)

    def copied(self, folder: Path) -> Workshop:
        shutil.copytree(self.folder, folder)
        return Workshop(folder)

    def bench(self) -> Workbench:
        """Anew, since params.yaml may have changed."""
        return Workbench(self.folder)

    def edit(self, **sections: Any) -> None:
        params = json.loads((self.folder / "params.yaml").read_text())
        for name, content in sections.items():
            params[name] = params.get(name, {}) | content if content is not None else None
        (self.folder / "params.yaml").write_text(json.dumps(params))

    def split(self, retain: Sequence[Record], **others: Sequence[Record]) -> Split:
        """What stays, and `forget` or other sets of a split; written as the stage `split` would."""
        bench, sets = self.bench(), {"retain": retain, **others}
        bench.sets.mkdir(parents=True, exist_ok=True)
        files = {name: write_set(bench.sets, name, sorted(sets.get(name, ()), key=lambda each: each.tag)) for name in SETS}
        parent = Parent(model=ModelVersion(name="m", version="1"), tensor_digest="c" * 64, datasets=())
        rows = {name: len(sets.get(name, ())) for name in SETS}
        made = Split(requests=("er-1",), parent=parent, effects=(Effect.REMOVAL,), rows=rows, files=files, digest="e" * 64)
        bench.write("split", body(made))
        return made

    def train(self) -> list[str]:
        """Every shard in turn, as DVC would; what each says."""
        return [train_shard(self.bench(), shard) for shard in self.bench().params.exact.shards]

    def run(self, retain: Sequence[Record], **others: Sequence[Record]) -> EnsembleManifest:
        """All stages up to the ensemble."""
        self.split(retain, **others)
        cut_shards(self.bench())
        self.train()
        assemble(self.bench())
        return self.manifest()

    def manifest(self) -> EnsembleManifest:
        return read(self.bench().route / "model")

    def log(self, shard: int) -> ShardLog:
        found = shard_log(self.bench(), shard)
        assert found is not None
        return found

    def shard(self, shard: int) -> Path:
        return self.bench().route / "shards" / str(shard)

    def listed(self, shard: int) -> set[str]:
        """md5 of what a shard's folder had and lost."""
        path = self.shard(shard) / "replaced.json"
        return set(json.loads(path.read_bytes())["files"]) if path.exists() else set()

    def purged(self) -> set[str]:
        """md5 of what a claim would list for purging."""
        return set(left_behind(self.bench(), *read_cut(self.bench())))

    def present(self, shard: int) -> set[str]:
        """md5 of the weights and checkpoints that are there."""
        return {md5_of(path) for path in self._weights(shard)}

    def _weights(self, shard: int) -> Iterator[Path]:
        yield from self.shard(shard).glob("*.safetensors")
        yield from self.shard(shard).glob("slices/*/*")

    def edit_log(self, shard: int, /, **changes: Any) -> None:
        path = self.shard(shard) / "training.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))
