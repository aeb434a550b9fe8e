"""What every stage works with: settings, the project's adapters (opened on first use) and the stage documents under build/."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from .. import config, digests
from ..documents import decode, encode
from ..params import Params
from ..policy import Policy
from ..protocols import Progress
from ..trust import read_trust
from ..verifier import Trust

if TYPE_CHECKING:
    from ..adapters.datasets import DatasetReader
    from ..adapters.dvc_project import DvcProject
    from ..adapters.ledger import Ledger
    from ..adapters.record_indexes import RecordIndexes
    from ..adapters.registry import Registry
    from ..adapters.schemas import Schema

T = TypeVar("T")


@dataclass(frozen=True)
class Workbench:
    """One folder with params.yaml and policy.yaml, inside a Git and DVC repository."""

    folder: Path = field(default_factory=Path.cwd)

    @cached_property
    def params(self) -> Params:
        """params.yaml of this folder."""
        return config.load_params(self.folder / "params.yaml")

    @cached_property
    def policy(self) -> Policy:
        """policy.yaml of this folder, or the defaults."""
        return config.load_policy(self.folder / "policy.yaml")

    @cached_property
    def settings(self) -> config.Settings:
        """Where the key, the ledger and the registry are."""
        return config.settings(self.folder)

    @cached_property
    def key(self) -> bytes:
        """The tag key."""
        return digests.read_tag_key(self.settings.tag_key_file)

    @cached_property
    def trust(self) -> Trust:
        """Who may sign what, as an owner signed it."""
        return read_trust(self.settings.trust_file)

    @cached_property
    def ledger(self) -> Ledger:
        """The record of erasure requests."""
        from ..adapters.ledger import Ledger

        return Ledger(self.settings.ledger_uri, digests.key_id(self.key), self.settings.state / "ledger.head")

    @cached_property
    def project(self) -> DvcProject:
        """Git and DVC around this folder."""
        from ..adapters.dvc_project import DvcProject

        return DvcProject(self.settings.root, self.folder)

    @property
    def schema(self) -> Schema:
        """How the main dataset's rows become keyed tags."""
        from ..adapters.schemas import Schema

        data = self.params.data
        return Schema(dataset=data.name, columns=data.columns, key=self.key, earlier=data.earlier_columns)

    @property
    def schemas(self) -> dict[str, Schema]:
        """How each dataset's rows do, by its name."""
        others = {
            also.name: replace(self.schema, dataset=also.name, columns=also.columns or self.params.data.columns, records_of=also.records_of)
            for also in self.params.data.also
        }
        return {self.params.data.name: self.schema, **others}

    @property
    def datasets(self) -> dict[str, str]:
        """Name of each dataset -> its path, relative to the git root; the main one first."""
        data = self.params.data
        return {data.name: self.from_root(data.path), **{also.name: self.from_root(also.path) for also in data.also}}

    @cached_property
    def index(self) -> RecordIndexes:
        """The record index of every dataset."""
        return self.index_under(self.key)

    def index_under(self, key: bytes) -> RecordIndexes:
        """The same under another tag key, for what was buried with a retired one."""
        from ..adapters.record_index import RecordIndex
        from ..adapters.record_indexes import RecordIndexes

        home, schemas = self.settings.state / "index", {name: replace(schema, key=key) for name, schema in self.schemas.items()}
        return RecordIndexes({name: RecordIndex(home, self.project, schema) for name, schema in schemas.items()}, self.params.data.name)

    @cached_property
    def reader(self) -> DatasetReader:
        """The dataset's records, as DVC kept them."""
        from ..adapters.datasets import DatasetReader

        return DatasetReader(project=self.project, schema=self.schema, others=self.schemas)

    @cached_property
    def registry(self) -> Registry:
        """MLflow's registry and tracking store."""
        from ..adapters.registry import connect

        return connect(self.settings, self.params.model.name)

    @property
    def sets(self) -> Path:
        """The folder of raw rows: git-ignored, never cached by DVC."""
        return self.folder / "build/raw/sets"

    @property
    def scratch(self) -> Path:
        """The state of a run and what the parent says about people's records: git-ignored, never cached by DVC, gone with the last request."""
        return self.folder / "build/raw/unlearning"

    @property
    def route(self) -> Path:
        """What the chosen strategy builds."""
        return self.folder / "build" / self.params.unlearn.strategy

    def from_root(self, path: str) -> str:
        """A path of params.yaml, relative to the git root."""
        return Path(os.path.relpath(self.folder / path, self.settings.root)).as_posix()

    def write(self, name: str, body: Mapping[str, Any]) -> None:
        """Write build/NAME.json."""
        digests.write_document(self.path(name), stage_schema(name), body)

    def read(self, name: str) -> dict[str, Any]:
        """The body of build/NAME.json."""
        return digests.read_document(self.path(name), stage_schema(name))

    def path(self, name: str) -> Path:
        """Where a stage document lies; some belong to their route."""
        return (self.route if name in OF_ROUTE else self.folder / "build") / f"{name}.json"

    def value(self, cls: type[T], name: str, key: str | None = None) -> T:
        """A document, or one key of it, as a record of records.py."""
        body = self.read(name)
        return decode(cls, body if key is None else body.get(key), f"{self.path(name)}" + (f": {key}" if key else ""))

    def no_request(self, name: str, before: str) -> bool:
        """Whether the stage before had nothing to do; then this one writes the empty document and is done."""
        if self.read(before)["requests"]:
            return False
        self.write(name, {"requests": []})
        return True


OF_ROUTE = frozenset({"unlearned", "family", "cut"})
NO_REQUEST = "no open request: nothing to do"


def stage_schema(name: str) -> str:
    """The schema of a stage document."""
    return f"mlflow-unlearn.{name}/1"


def body(record: Any) -> dict[str, Any]:
    """A record as the body of a document, `requests` first."""
    document: dict[str, Any] = encode(record)
    return {"requests": document.pop("requests"), **document}


@contextmanager
def progress_bar(label: str) -> Iterator[Callable[[Progress], None]]:
    """A bar with time left on stderr; give the yielded function every Progress."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn())
    with Bar(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(label, total=None)
        yield lambda done: bar.update(task, total=done.steps, completed=done.step)
