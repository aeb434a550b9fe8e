"""`make fuzz`: a million damaged documents through every parser of what strangers hand us; one line a parser, and ends 1 at the first other error."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from fuzz_targets import TARGETS
from fuzzing import fuzz

from mlflow_unlearn.verifier import RefusedError, UndecidedError


def main() -> int:
    """Fuzz each parser with its share of the inputs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=1_000_000, help="inputs in all")
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    for name, target in TARGETS.items():
        began = time.process_time()
        try:
            answers = fuzz(target.parse, target.seeds(), given.count * target.share // 1000, given.seed, (RefusedError, UndecidedError))
        except AssertionError as error:
            print(f"{name} | {error}")
            return 1
        told = ", ".join(f"{count:,} {answer}" for answer, count in sorted(answers.items()))
        print(f"{name} | {answers.total():,} inputs | {told} | {time.process_time() - began:.0f} s", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
