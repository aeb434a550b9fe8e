"""`python -m verifier CERTIFICATE`: the answer on the command line. Exit code 0: yes; 1: no; 2: could not decide, which is no yes either."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

from .answer import Case, Report, verify
from .documents import read_file

EXIT = {"yes": 0, "no": 1}


def main(arguments: list[str] | None = None) -> int:
    """Read what is named, check it, say what came of it."""
    parser = argparse.ArgumentParser(prog="verifier", description="Is what a certificate of unlearning says so?")
    parser.add_argument("certificate", type=Path)
    parser.add_argument("--trust", type=Path, help="trust.json of whoever issued it")
    parser.add_argument("--owner", help="key id that must have signed the trust file, or its first 16 characters or more")
    parser.add_argument("--model", type=Path, help="folder of the model, as MLflow downloads it")
    parser.add_argument("--policy", type=Path, help="policy.yaml that was in force")
    parser.add_argument("--proofs", type=Path, help="proofs of absence from what was retained")
    parser.add_argument("--json", action="store_true", help="machine-readable answer")
    given = parser.parse_args(arguments)
    try:
        case = Case(
            certificate=read_file(given.certificate),
            trust=given.trust and read_file(given.trust),
            owner=given.owner,
            model=given.model,
            policy=given.policy and read_file(given.policy),
            proofs=given.proofs and read_file(given.proofs),
        )
    except OSError as error:
        sys.stderr.write(f"{error.filename}: {error.strerror}\n")
        return 2
    report = verify(case, datetime.now(UTC), progress if sys.stderr.isatty() else lambda _done, _all: None)
    sys.stdout.write(json.dumps(asdict(report), indent=2) + "\n" if given.json else "".join(f"{line}\n" for line in lines(report)))
    return EXIT.get(report.answer, 2)


def lines(report: Report) -> Iterator[str]:
    """The answer first, then why, what it is about, what was checked and what was not."""
    yield {"yes": "YES: it holds, and the verdict is PASS.", "no": "NO.", "undecided": "COULD NOT DECIDE: this is not a yes."}[report.answer]
    yield from (f"  because {reason}" for reason in report.reasons)
    yield from (f"{what}: {value}" for what, value in report.about.items())
    yield from (f"{effect}: {found} (counted again)" for effect, found in report.outcomes.items())
    yield from (f"checked: {what}" for what in report.checked)
    yield from (f"not checked: {what}" for what in report.not_checked)


def progress(done: int, total: int) -> None:
    """Bytes hashed so far, on one line of stderr."""
    sys.stderr.write(f"\rhashing {done >> 20} of {total >> 20} MiB" + ("\n" if done >= total else ""))


if __name__ == "__main__":
    sys.exit(main())
