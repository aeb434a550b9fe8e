"""What `verify` does: files to the verifier's answer. Neither git, MLflow nor a network is needed."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from ..config import git_root
from ..errors import ConfigError
from ..verifier import Report, verify
from ..verifier.__main__ import progress
from ..verifier.answer import Case
from ..verifier.documents import read_file


@dataclass(frozen=True, kw_only=True)
class Given:
    """What was typed; None where nothing was."""

    certificate: Path
    model: Path | None = None
    """Folder of the model, as MLflow downloads it."""
    trust: Path | None = None
    owner: str | None = None
    policy: Path | None = None
    proofs: Path | None = None


def verify_files(given: Given) -> Report:
    """The answer about a certificate; hashing says on a terminal's stderr how far it is.

    Raises:
        ConfigError: there is no such certificate.
        OSError: a file that cannot be read.
    """
    if not given.certificate.exists():
        raise ConfigError(f"{given.certificate}: no such file; it is in the zip of `mlflow-unlearn report REQUEST`")
    trust = given.trust or trust_here()
    case = Case(
        certificate=read_file(given.certificate),
        trust=None if trust is None else read_file(trust),
        owner=given.owner,
        model=given.model,
        policy=None if given.policy is None else read_file(given.policy),
        proofs=None if given.proofs is None else read_file(given.proofs),
    )
    return verify(case, datetime.now(UTC), progress if sys.stderr.isatty() else lambda _done, _all: None)


def trust_here() -> Path | None:
    """MLFLOW_UNLEARN_TRUST, else trust.json at the git root; None where neither is there."""
    if named := os.environ.get("MLFLOW_UNLEARN_TRUST"):
        return Path(named)
    try:
        file = git_root(Path.cwd()) / "trust.json"
    except ConfigError:
        return None
    return file if file.exists() else None
