"""`make bench-certificate`: signing, verifying and counting again a certificate of real size, hashing a model, the gate over many versions.

The certificate is that of the tests' simulated models: three states, 800 canaries, two attacks. The model is 1.5 GiB of random bytes in eight
files of tensors, read once before anything is measured. CPU time; `two cores` is bytes over half of the CPU seconds, since both digests run side by
side: what a clock showed is told beside it, and depends on what else the machine does.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import statistics
import struct
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

import certified

from mlflow_unlearn import dsse, verifier
from mlflow_unlearn.statements import CERTIFICATE
from mlflow_unlearn.verifier.answer import Case, verify
from mlflow_unlearn.verifier.envelopes import IN_TOTO, signs

FILES, FILE_BYTES, TENSORS = 8, 192 << 20, 6
Figure = tuple[str, float, str, float]


def milliseconds(act: Callable[[], object], times: int) -> float:
    """CPU of one call, the median of many."""
    taken = []
    for _ in range(times):
        started = time.process_time_ns()
        act()
        taken.append((time.process_time_ns() - started) / 1e6)
    return statistics.median(taken)


def envelopes(folder: Path) -> list[Figure]:
    """A certificate without its model."""
    made = certified.certified(folder)
    raw, signer = made.case.certificate, certified.signer("ci")
    payload = dsse.statement(CERTIFICATE, made.subject, made.said)
    trust = verifier.read_trust(made.case.trust or b"", certified.NOW)
    key = trust.keys[signer.key_id]

    def verified() -> None:
        envelope = verifier.open_envelope(raw, "certificate")
        if not signs(key, envelope, envelope.signatures[0][1]):
            raise SystemExit("the signature does not hold")

    case = Case(certificate=raw, trust=made.case.trust)
    if verify(case, certified.NOW).answer != "yes":
        raise SystemExit("the certificate does not hold")
    return [
        (
            f"sign a payload of {len(payload) >> 10} KiB and write the envelope",
            1.0,
            "CPU ms",
            milliseconds(lambda: dsse.seal(payload, IN_TOTO, [signer]), 200),
        ),
        ("open the envelope and verify its signature", 1.0, "CPU ms", milliseconds(verified, 200)),
        ("the whole answer without the model: every figure counted again", math.inf, "CPU ms", milliseconds(lambda: verify(case, certified.NOW), 20)),
    ]


def model(folder: Path) -> int:
    """Files of random tensors; how many bytes they are."""
    part = FILE_BYTES // TENSORS
    for number in range(FILES):
        entries = {f"layer.{at}.{number}": {"dtype": "U8", "shape": [part], "data_offsets": [at * part, (at + 1) * part]} for at in range(TENSORS)}
        header = json.dumps(entries).encode()
        with (folder / f"model-{number}.safetensors").open("wb") as stream:
            stream.write(struct.pack("<Q", len(header)) + header)
            for _ in range(TENSORS):
                stream.write(os.urandom(part))
    return sum(path.stat().st_size for path in folder.iterdir())


def hashing(folder: Path) -> list[Figure]:
    """Both digests of a model, against one pass of hashlib over its files."""
    size = model(folder)

    def plain() -> None:
        for path in sorted(folder.iterdir()):
            with path.open("rb", buffering=0) as stream:
                hashlib.file_digest(stream, "sha256")

    cpu, wall = zip(*(seconds(lambda: verifier.subject_of(folder)) for _ in range(3)), strict=True)
    alone, _ = zip(*(seconds(plain) for _ in range(3)), strict=True)
    return [
        (
            f"hashing {size / 1e9:.1f} GB of model: files and tensors, each byte twice",
            1.0,
            "GB/s on two cores, at least",
            size / 1e9 / (min(cpu) / 2),
        ),
        ("the same by the clock, beside whatever else ran", 0.0, "GB/s, at least", size / 1e9 / min(wall)),
        ("hashlib alone, each byte once, one core", 0.0, "GB/s, at least", size / 1e9 / min(alone)),
        ("CPU of both digests over that of two plain passes", math.inf, "times", min(cpu) / (2 * min(alone))),
    ]


def seconds(act: Callable[[], object]) -> tuple[float, float]:
    """CPU of this process and wall time."""
    started, cpu = time.monotonic(), time.process_time()
    act()
    return time.process_time() - cpu, time.monotonic() - started


def measure() -> list[Figure]:
    """(what, target, unit, measured) of each figure."""
    with tempfile.TemporaryDirectory() as one, tempfile.TemporaryDirectory() as other:
        return [*envelopes(Path(one)), *hashing(Path(other))]


def main() -> None:
    """Measure and print, the gate's rows too."""
    from run import rows_of, shown

    print("what | target | measured | ok")
    held = [shown(row) for name in ("certificate", "gate_scale") for row in rows_of(name)]
    sys.exit(0 if all(held) else 1)


if __name__ == "__main__":
    main()
