"""params.yaml, policy.yaml and the environment as frozen values. Every wrong key and type is named at once."""

from __future__ import annotations

import difflib
import os
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from .documents import decode
from .errors import ConfigError
from .params import Params
from .policy import Policy

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Where this project keeps things, from the environment and the git root."""

    root: Path
    """The git root."""
    tag_key_file: Path
    ledger_uri: str
    tracking_uri: str
    keys: Path | None = None
    """Folder of private signing keys, where it is another than `.unlearn/keys`."""
    trust: Path | None = None
    """The trust file, where it is another than `trust.json` at the git root."""
    artifacts: str = ""
    """Where MLflow's server keeps its artifacts, for machines that read them there instead of through the server; empty: through the server."""
    gate_key: Path | None = None
    """The key of the gate inside MLflow's server, where it is another file than `.unlearn/gate.key`."""
    signer: str = ""
    """Who signs here: a holder of a key file, or `scheme:reference` of a KMS; empty: the one key here that may."""

    @property
    def state(self) -> Path:
        """Private state outside git and DVC: keys, ledger, index."""
        return self.root / ".unlearn"

    @property
    def key_folder(self) -> Path:
        """Private signing keys."""
        return self.keys or self.state / "keys"

    @property
    def gate_key_file(self) -> Path:
        """The key under which the gate inside MLflow's server writes what it decided; servers of one database share it."""
        return self.gate_key or self.state / "gate.key"

    @property
    def trust_file(self) -> Path:
        """Who may sign what; public, and kept in git."""
        return self.trust or self.root / "trust.json"


def git_root(start: Path) -> Path:
    """The nearest folder at or above `start` that holds `.git`.

    Raises:
        ConfigError: there is none.
    """
    for folder in (start.resolve(), *start.resolve().parents):
        if (folder / ".git").exists():
            return folder
    raise ConfigError(f"{start}: not inside a git repository; run `git init` and `dvc init` first")


def settings(start: Path | None = None, environment: Mapping[str, str] | None = None) -> Settings:
    """Settings for the repository around `start` (default: the current folder).

    Raises:
        ConfigError: no git repository; or a ledger that is named and empty, as a secret is that nobody set: the ledger in .unlearn would know no
            request then.
    """
    env = os.environ if environment is None else environment
    if env.get("MLFLOW_UNLEARN_LEDGER_URI") == "":
        raise ConfigError("MLFLOW_UNLEARN_LEDGER_URI: set and empty; set it to the ledger's URI, or unset it for the ledger in .unlearn")
    root = git_root(start or Path.cwd())
    state = root / ".unlearn"
    return Settings(
        root=root,
        tag_key_file=Path(env.get("MLFLOW_UNLEARN_TAG_KEY_FILE") or state / "tag.key"),
        ledger_uri=env.get("MLFLOW_UNLEARN_LEDGER_URI") or f"sqlite:///{state / 'ledger.db'}",
        tracking_uri=env.get("MLFLOW_TRACKING_URI") or f"sqlite:///{root / 'mlflow.db'}",
        keys=Path(folder) if (folder := env.get("MLFLOW_UNLEARN_KEYS")) else None,
        trust=Path(file) if (file := env.get("MLFLOW_UNLEARN_TRUST")) else None,
        artifacts=env.get("MLFLOW_UNLEARN_ARTIFACTS", ""),
        gate_key=Path(file) if (file := env.get("MLFLOW_UNLEARN_GATE_KEY_FILE")) else None,
        signer=env.get("MLFLOW_UNLEARN_SIGNER", ""),
    )


def read_yaml(path: Path) -> dict[str, Any]:
    """A YAML 1.2 mapping.

    Raises:
        ConfigError: missing, not YAML, or not a mapping.
    """
    from ruamel.yaml import YAML  # local: `--help` must not pay for it
    from ruamel.yaml.error import YAMLError

    try:
        document = YAML(typ="safe", pure=True).load(path)
    except FileNotFoundError:
        raise ConfigError(f"{path}: not there; run `mlflow-unlearn init` or change to the folder with params.yaml") from None
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror})") from None
    except (YAMLError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        line = f":{mark.line + 1}" if mark else ""
        raise ConfigError(f"{path}{line}: not YAML: {getattr(error, 'problem', None) or 'cannot be parsed'}") from None
    if not isinstance(document, dict):
        raise ConfigError(f"{path}: expected a mapping, found {type(document).__name__}")
    return document


def load_params(path: Path = Path("params.yaml")) -> Params:
    """The sections of params.yaml that this package reads, all complaints at once."""
    document = read_yaml(path)
    known = typing.get_type_hints(Params)
    misspelt = [
        f"{path}: unknown key '{key}'; did you mean '{near[0]}'?"
        for key in document
        if key not in known and (near := difflib.get_close_matches(str(key), known, n=1, cutoff=0.8)) and near[0] not in document
    ]
    if misspelt:
        raise ConfigError("\n".join(misspelt))
    return decode(Params, {key: value for key, value in document.items() if key in known}, str(path))


def load_policy(path: Path = Path("policy.yaml")) -> Policy:
    """policy.yaml; the defaults where the file does not exist."""
    return decode(Policy, read_yaml(path), str(path)) if path.exists() else Policy()
