"""Stage `replay`: every training repeated once, and with it the evidence for an exact claim."""

from __future__ import annotations

from .claiming import claim
from .workbench import NO_REQUEST, Workbench


def run(bench: Workbench) -> str:
    """Write build/exact/replays and build/exact/unlearned.json; without an open request nothing is claimed and nothing repeated."""
    (bench.route / "replays").mkdir(parents=True, exist_ok=True)
    if bench.no_request("unlearned", "cut"):
        return NO_REQUEST
    return claim(bench)
