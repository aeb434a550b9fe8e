"""A repository with a tag key, where the examples' scripts can run, and what they wrote read back."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as parquet
import pytest

KEY = bytes(range(32))


@dataclass(frozen=True)
class Made:
    """What a dataset script wrote into a folder."""

    folder: Path

    def rows(self, name: str) -> list[dict[str, Any]]:
        path = self.folder / name
        files = sorted(path.glob("*.parquet")) if path.is_dir() else [path]
        return [row for file in files for row in parquet.read_table(file).to_pylist()]

    def ids(self, name: str) -> set[str]:
        return {row["record_id"] for row in self.rows(name)}

    def bytes(self) -> dict[str, bytes]:
        return {str(path.relative_to(self.folder)): path.read_bytes() for path in sorted(self.folder.rglob("*")) if path.is_file()}


@contextmanager
def inside(folder: Path, params: str) -> Iterator[None]:
    """The current folder is a repository with this params.yaml and a known tag key."""
    (folder / ".git").mkdir(parents=True, exist_ok=True)
    (folder / "params.yaml").write_text(params)
    key = folder / ".unlearn" / "tag.key"
    key.parent.mkdir(exist_ok=True)
    key.write_bytes(KEY)
    key.chmod(0o600)
    with pytest.MonkeyPatch.context() as patch:
        for name in ("MLFLOW_UNLEARN_TAG_KEY_FILE", "MLFLOW_UNLEARN_LEDGER_URI"):
            patch.delenv(name, raising=False)
        patch.chdir(folder)
        yield


@pytest.fixture(scope="session")
def make() -> Callable[[Callable[[], None], Path, str, str], Made]:
    """Run a script's main in a repository; what it wrote."""

    def run(main: Callable[[], None], folder: Path, params: str, written: str) -> Made:
        with inside(folder, params):
            main()
        return Made(folder / written)

    return run
