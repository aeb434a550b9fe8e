"""What an answer about a version would rest on now, looked at without working the answer out."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from ..adapters.gate_views import VersionRow
from ..digests import sha256_json


@dataclass(frozen=True, kw_only=True)
class Resting:
    """Settings, the version's row and its files at one moment."""

    row: VersionRow
    location: str
    """Of its files, in the one spelling."""
    files: str
    """Digest of their listing."""
    stamp: str
    """Of the settings."""

    @cached_property
    def bound(self) -> str:
        """As `Standing.bound`."""
        return bound(self.stamp, self.row)

    @cached_property
    def digest(self) -> str:
        """As `Standing.rests_on`."""
        return sha256_json([self.bound, self.files])

    @property
    def lasting(self) -> tuple[str, str, str]:
        """Of all that what nobody changes by a tag or a stage."""
        return self.stamp, self.location, self.files


def bound(stamp: str, row: VersionRow) -> str:
    """Digest of settings and row, which are looked at though files and ledger do not answer."""
    return sha256_json([stamp, row.digest])
