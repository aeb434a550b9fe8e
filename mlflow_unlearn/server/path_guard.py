"""What the server's artifact repositories ask before they touch a file, and the words in which MLflow hands a no on."""

from __future__ import annotations

import os
import posixpath
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import NoReturn
from urllib.parse import unquote

from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE, PERMISSION_DENIED
from mlflow.store.artifact.host_policy import is_tracking_server_process
from mlflow.utils.uri import validate_path_is_safe

from ..adapters.storage_locations import OWN_SCHEME, unquoted
from ..errors import LineageError
from .custody import Custody, installed


@dataclass(frozen=True)
class Guard:
    """What a repository asks before it touches a file: the path as it will be used, or MLflow's refusal. `root` is the place of the repository."""

    root: str
    own: bool = False
    """Whether only the server itself may name it: then it is its artifacts destination, or lies below."""

    def listing(self, path: str | None) -> str:
        """For names and sizes."""
        self._custody()
        return plain(path)

    def reading(self, path: str | None) -> str:
        """For the contents of a file, or of all files of a folder."""
        return self._allowed(path, Custody.refusal_to_read)

    def writing(self, path: str) -> str:
        """For a file that is to be added or replaced."""
        return self._allowed(path, Custody.refusal_to_write)

    def publishing(self, path: str) -> str:
        """The same in the moment when it gets its name: what was registered until now counts."""
        return self._allowed(path, partial(Custody.refusal_to_write, now=True))

    def deleting(self, path: str | None) -> str:
        """For a file, or all files of a folder."""
        return self._allowed(path, Custody.refusal_to_delete)

    def write_once(self, path: str) -> bool:
        """Whether a file that is there stays."""
        return self._custody().write_once(path, self.root)

    def _allowed(self, path: str | None, question: Callable[..., str | None]) -> str:
        name = plain(path)
        if (words := question(self._custody(), name, self.root)) is not None:
            refuse(words)
        return name

    def _custody(self) -> Custody:
        if (custody := installed() or _of_this_server()) is None:
            refuse(
                "This server guards its model files (--artifacts-destination unlearn-...) and has no gate that could say who may touch them: "
                "start it with --registry-store-uri unlearn-sqlite:///PATH or unlearn-postgresql://..."
            )
        if self.own and custody.storage.inside(self.root) is None:
            refuse(f"{self.root}: {OWN_SCHEME}")
        return custody


def _of_this_server() -> Custody | None:
    """A worker of the server makes its registry store when it is first asked about a model, which may be after the first file was asked for."""
    if is_tracking_server_process():
        from mlflow.server.handlers import _get_model_registry_store

        _get_model_registry_store()
    return installed()


def plain(path: str | None) -> str:
    """A path as MLflow's handlers hand it on.

    Raises:
        MlflowException: it leads out of the artifacts or has characters that no name has.
    """
    try:
        given = unquoted(path or "")
        safe = str(validate_path_is_safe(given)).rstrip("/")
    except (LineageError, ValueError):
        refuse(f"{path!r}: expected a path without nested percent signs", INVALID_PARAMETER_VALUE)
    if any(ord(each) < 32 or ord(each) == 127 for each in given) or unquote(safe) != safe:
        refuse(f"{path!r}: expected a path without control characters", INVALID_PARAMETER_VALUE)
    return safe


def named(folder: str | None, file: str) -> str:
    """Path of a file that MLflow is given by its folder and a name, of which it takes the last part.

    Raises:
        MlflowException: no file has that name.
    """
    name = os.path.basename(file)  # noqa: PTH119 - Path drops a last slash
    if name in ("", ".", ".."):
        refuse(f"{file!r}: expected the name of a file", INVALID_PARAMETER_VALUE)
    return posixpath.join(plain(folder), name)


def there(path: str) -> str:
    """Words about a name that is taken."""
    return f"{path}: is there already, and files of a model are written once. Log the model anew: it gets a folder of its own."


def refuse(words: str, code: int = PERMISSION_DENIED) -> NoReturn:
    """Say no: HTTP 403 with these words, or 400 where no file can have such a name.

    Raises:
        MlflowException: always.
    """
    raise MlflowException(words, error_code=code)
