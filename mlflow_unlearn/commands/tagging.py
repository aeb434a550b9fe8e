"""What the `tag` command does: the keyed tags by which a client names people to a served ensemble."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ..config import settings
from ..digests import keyed_tag, read_tag_key
from ..errors import ConfigError


def tag_subjects(folder: Path, subjects: Sequence[str]) -> list[str | None]:
    """Keyed tag of each id, line by line; None for a blank line. Whether anybody is in the data plays no part.

    Raises:
        ConfigError: no id, or no tag key here.
    """
    if not any(subjects):
        raise ConfigError("tag: no id given; pass a file or - with --subjects, one a line")
    key = read_tag_key(settings(folder).tag_key_file)
    return [keyed_tag(key, "subject", each) if each else None for each in subjects]
