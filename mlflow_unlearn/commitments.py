"""Commitments to a set of records: the key, how an id becomes a leaf, and what is published.

A leaf is HMAC-SHA-256, uncut, over the netstring-framed (domain, value) under the dataset's commitment key, in hex as the HMAC key. Domains are
`record` (its id), `subject` (a person's id) and `content` (prompt, answer); all three are leaves of one tree. Who is given the commitment key can
compute the leaf of an id and therefore test any id against a proof; the tag key is another one and stays secret.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from .documents import decode
from .errors import ConfigError
from .verifier.merkle import Head

KEY_BYTES = 32
SCHEMA = "mlflow-unlearn.commitment/1"
"""Of the document beside a version."""
TAG = "unlearn.commitment."
"""Prefix of a version's tags: `<dataset>` for what the parent was trained on, `retain` for what was left of it."""
RETAIN = "retain"
Domain = Literal["record", "subject", "content"]
DIGEST = re.compile(r"[0-9a-f]{64}")
_IDENTITY = re.compile(r"[0-9a-f]{16}")


def key_id(key: bytes) -> str:
    """Name of a commitment key, 16 hex characters; it does not give the key away."""
    return hashlib.sha256(b"mlflow-unlearn commitment" + key).hexdigest()[:16]


def read_key(path: Path) -> bytes:
    """A commitment key from its file.

    Raises:
        ConfigError: missing, or of another length.
    """
    try:
        key = path.read_bytes()
    except FileNotFoundError:
        raise ConfigError(f"{path}: no commitment key here; `mlflow-unlearn commitment disclose --to FILE` writes it") from None
    if len(key) != KEY_BYTES:
        raise ConfigError(f"{path}: expected a commitment key of {KEY_BYTES} bytes, found {len(key)}; ask for it again")
    return key


def leaf(key: bytes, domain: Domain, *parts: str) -> bytes:
    """The leaf of one value. Ids are without outer spaces, as in the data."""
    framed = b"".join(b"%d:%s" % (len(raw), raw) for raw in (part.encode() for part in (domain, *parts)))
    return hmac.digest(key.hex().encode(), framed, "sha256")


@dataclass(frozen=True, kw_only=True)
class Commitment:
    """What is published of a set: it binds whoever made it and says nothing about anybody."""

    root: str
    """`merkle.bound` of size and tree, 64 hex characters."""
    size: int
    key_id: str

    def __post_init__(self) -> None:
        if not DIGEST.fullmatch(self.root) or not _IDENTITY.fullmatch(self.key_id) or not 0 <= self.size < 1 << 64:
            raise ConfigError("expected a root of 64 and a key id of 16 hex characters (0-9, a-f) and a size of 0 or more")

    @property
    def head(self) -> Head:
        """As merkle.py checks it."""
        return Head(size=self.size, root=bytes.fromhex(self.root))

    @property
    def tag(self) -> str:
        """`ROOT:SIZE:KEY_ID`, the value of a version's tag."""
        return f"{self.root}:{self.size}:{self.key_id}"


def committed(head: Head, key: bytes) -> Commitment:
    """The commitment to a tree of leaves that were made with this key."""
    return Commitment(root=head.root.hex(), size=head.size, key_id=key_id(key))


@dataclass(frozen=True, kw_only=True)
class CommittedRevision:
    """What a model was trained on."""

    name: str
    md5: str
    commitment: Commitment


@dataclass(frozen=True, kw_only=True)
class Commitments:
    """All that an unlearned version commits to: the data of its parent, and what of them was retained."""

    dataset: str
    """Whose commitment key it is."""
    revisions: tuple[CommittedRevision, ...]
    retain: Commitment

    def tags(self) -> dict[str, str]:
        """Tags of a version. Revisions of one dataset, and a dataset called `retain`, are told apart by their md5."""
        names = [revision.name for revision in self.revisions]
        tags = {}
        for name, revision in zip(names, self.revisions, strict=True):
            alone = names.count(name) == 1 and name != RETAIN
            tags[f"{TAG}{name}" if alone else f"{TAG}{name}/{revision.md5[:8]}"] = revision.commitment.tag
        return {**tags, f"{TAG}{RETAIN}": self.retain.tag}


def parse_tag(text: str, where: str) -> Commitment:
    """A tag's value.

    Raises:
        ConfigError: it is not `ROOT:SIZE:KEY_ID`.
    """
    root, size, identity = (*text.split(":"), "", "", "")[:3]
    if text.count(":") != 2 or not re.fullmatch(r"[0-9]{1,20}", size):
        raise ConfigError(f"{where}: expected ROOT:SIZE:KEY_ID as in the version's tag")
    return decode(Commitment, {"root": root, "size": int(size), "key_id": identity}, where)


def parse_head(text: str, where: str) -> Head:
    """`ROOT:SIZE`, or a whole tag.

    Raises:
        ConfigError: it is neither.
    """
    return parse_tag(text if text.count(":") == 2 else f"{text}:{'0' * 16}", where).head
