"""Canonical bytes, keyed tags and tensor digests: how this project names data without holding it."""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

from .errors import ConfigError, TamperedError

TAG_KEY_BYTES = 32
Domain = Literal["record", "subject", "content", "shard", "canary", "kind"]


def canonical_json(document: Any) -> bytes:
    """UTF-8 JSON with sorted keys and no spaces: equal values give equal bytes."""
    return json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def sha256_json(document: Any) -> str:
    """Hex SHA-256 of the canonical bytes of a JSON value."""
    return hashlib.sha256(canonical_json(document)).hexdigest()


def sha256_file(path: Path) -> str:
    """Hex SHA-256 of a file, read in pieces."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def md5_of(path: Path) -> str:
    """Hex MD5 of a file: by what name DVC's cache and remotes hold it. It protects nothing."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "md5").hexdigest()


def source_digest(folder: Path) -> str:
    """Hex SHA-256 over the Python files below a folder, by name: which code ran."""
    return sha256_json({path.relative_to(folder).as_posix(): sha256_file(path) for path in sorted(folder.rglob("*.py"))})


def keyed_tag(key: bytes, domain: Domain, *parts: str) -> str:
    """HMAC-SHA-256 over netstring-framed parts (`length:text`, length in UTF-8 bytes), cut to 128 bits, as 32 hex characters.

    Frames keep ("ab", "c") apart from ("a", "bc"); the domain keeps a record's tag apart from a subject's. The HMAC key is the tag key in hex,
    64 ASCII characters and so exactly one block, and every message is text: what computes a million tags at once may take strings only.
    """
    message = b"".join(b"%d:%s" % (len(raw), raw) for raw in (part.encode() for part in (domain, *parts)))
    return hmac.digest(key.hex().encode(), message, "sha256").hex()[:32]


def key_id(key: bytes) -> str:
    """Check value of a tag key, 16 hex characters: says whether two people hold the same key and nothing else about it."""
    return hmac.digest(key.hex().encode(), b"mlflow-unlearn key id", "sha256").hex()[:16]


def read_tag_key(path: Path) -> bytes:
    """The tenant's tag key.

    Raises:
        ConfigError: the file is missing, of another length, or readable by others.
    """
    try:
        key = path.read_bytes()
    except FileNotFoundError:
        raise ConfigError(f"{path}: no tag key here; run `mlflow-unlearn init` or set MLFLOW_UNLEARN_TAG_KEY_FILE") from None
    if len(key) != TAG_KEY_BYTES:
        raise ConfigError(f"{path}: expected {TAG_KEY_BYTES} bytes, found {len(key)}; restore the key this project began with")
    if path.stat().st_mode & 0o077:
        raise ConfigError(f"{path}: others may read the tag key; run `chmod 600 {path}`")
    return key


def retired_key_file(path: Path, identity: str) -> Path:
    """Where a rotation keeps the tag key of this `key_id`, beside the key in use."""
    return path.with_name(f"{path.name}.retired-{identity}")


def read_retired_keys(path: Path) -> dict[str, bytes]:
    """`key_id` -> tag key of every retired key beside the key file `path`; a file that is not the key its name says is refused.

    Raises:
        ConfigError: such a file, or one that `read_tag_key` refuses.
    """
    keys = {found.name.rpartition("-")[2]: read_tag_key(found) for found in sorted(path.parent.glob(f"{path.name}.retired-*"))}
    for identity, key in keys.items():
        if key_id(key) != identity:
            raise ConfigError(f"{retired_key_file(path, identity)}: holds the key {key_id(key)}; restore the retired key or remove the file")
    return keys


def read_gate_key(path: Path) -> bytes:
    """The key under which the gate inside MLflow's server writes what it decided; made here if there is none yet.

    Raises:
        ConfigError: it is of another length, readable by others, or cannot be written.
    """
    try:
        create_tag_key(path)
        key, mode = path.read_bytes(), path.stat().st_mode
    except OSError as error:
        raise ConfigError(f"{path}: no gate key here, and none can be written ({error.strerror}); set MLFLOW_UNLEARN_GATE_KEY_FILE") from None
    if len(key) != TAG_KEY_BYTES or mode & 0o077:
        found = f"{len(key)} bytes with mode {mode & 0o777:o}"
        raise ConfigError(f"{path}: expected a gate key of {TAG_KEY_BYTES} bytes with mode 600, found {found}; restore it, or run `chmod 600 {path}`")
    return key


def create_tag_key(path: Path, key: bytes | None = None) -> bool:
    """Write a random key, or this one, with mode 0600; False when one is there already."""
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return False
    with os.fdopen(handle, "wb") as stream:
        stream.write(key or os.urandom(TAG_KEY_BYTES))
        stream.flush()
        os.fsync(stream.fileno())
    return True


def tensor_digest(paths: Iterable[Path]) -> str:
    """Hex SHA-256 over (name, dtype, shape, bytes) of every tensor in safetensors files, by name.

    Independent of file names, sharding and order of tensors: equal weights give equal digests.

    Raises:
        TamperedError: a file is not a safetensors file, or was cut short.
    """
    from .verifier import RefusedError, model_files  # MLflow's plugins load this module and hash no tensors

    try:
        return model_files.tensor_digest(paths)
    except RefusedError as error:
        raise TamperedError(str(error)) from None


def write_atomically(path: Path, content: bytes) -> None:
    """Write aside, fsync, rename: a kill leaves the old file or the new one, nothing between."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, aside = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        Path(aside).chmod(0o644)
        Path(aside).replace(path)
    finally:
        Path(aside).unlink(missing_ok=True)  # gone already when the rename was reached


def write_document(path: Path, schema: str, body: Mapping[str, Any]) -> None:
    """A stage's JSON: `schema` first, then the body in its own order, two-space indented, newline at the end."""
    write_atomically(path, (json.dumps({"schema": schema, **body}, indent=2, ensure_ascii=False) + "\n").encode())


def read_document(path: Path, schema: str) -> dict[str, Any]:
    """The body of a stage's JSON without its `schema`.

    Raises:
        ConfigError: missing, not JSON, or of another schema.
    """
    try:
        document = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise ConfigError(f"{path}: not there; run `dvc repro` so that the stage before makes it") from None
    except ValueError:
        raise ConfigError(f"{path}: not JSON; delete it and run `dvc repro`") from None
    found = document.pop("schema", None) if isinstance(document, dict) else None
    if found != schema:
        raise ConfigError(f"{path}: expected schema {schema}, found {found}; run `dvc repro` with this version")
    return dict(document)
