"""Small folders in the form of TOFU and MUSE, and subjects made of numbers."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from mlflow_unlearn.protocols import Record

WORDS = ("lamp", "key", "cup", "door", "table", "chair")


def lines(path: Path, rows: Sequence[Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(json.dumps(row) for row in rows) + "\n", encoding="utf-8")
    return path


def question(number: int, where: str, wrong: int, reworded: bool) -> dict[str, Any]:
    thing = WORDS[number % len(WORDS)]
    row: dict[str, Any] = {
        "question": f"where is {thing} {number} of {where}?",
        "answer": f"the {thing} is by the door",
        "perturbed_answer": [f"the {thing} is by the {other}" for other in WORDS[:wrong]],
    }
    return row | ({"paraphrased_answer": f"by the door is the {thing}"} if reworded else {})


def tofu_folder(folder: Path, n: int = 8, forget: str = "forget10") -> Path:
    """TOFU's four files with n questions each."""
    for name, wrong, reworded in ((f"{forget}_perturbed", 5, True), ("retain_perturbed", 5, True), ("real_authors_perturbed", 3, False)):
        lines(folder / f"{name}.jsonl", [question(i, name, wrong, reworded) for i in range(n)])
    lines(folder / "world_facts_perturbed.jsonl", [question(i, "the world", 3, False) for i in range(n)])
    return folder


def muse_folder(folder: Path, n: int = 6) -> Path:
    """MUSE's files, JSON arrays as its repository has them."""
    tables: Mapping[str, Sequence[Any]] = {
        "verbmem/forget": [{"prompt": f"the key of {word}", "gt": f"and the cup are by the {word} {i}"} for i, word in enumerate(WORDS[:n])],
        "knowmem/forget_qa": [{"question": f"where is {word}?", "answer": "by the door"} for word in WORDS[:n]],
        "knowmem/forget_qa_icl": [{"question": "who keeps the key?", "answer": "the cup"}],
        "knowmem/retain_qa": [{"question": f"who keeps {word}?", "answer": "the key"} for word in WORDS[:n]],
        "privleak/forget": [f"the {word} is by the door" for word in WORDS[:n]],
        "privleak/holdout": [f"a cup is on the {word}" for word in WORDS[:n]],
    }
    for name, rows in tables.items():
        path = folder / f"{name}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(rows), encoding="utf-8")
    return folder


def record(prompt: str, answer: str, **more: Any) -> Record:
    return Record(tag="0" * 32, subject=None, prompt=prompt, answer=answer, **more)


def spoken(own: Sequence[float], wrong: Sequence[Sequence[float]] = (), reworded: Sequence[float | None] = (), said: str = "by the door") -> Any:
    """Records of one token each, given by its probability."""
    n = len(own)
    return SimpleNamespace(
        token_log_probs=[np.log([p]) for p in own],
        token_hits=[np.array([p > 0.5]) for p in own],
        wrong_log_probs=[[np.log([p]) for p in each] for each in wrong or [()] * n],
        paraphrased_log_probs=[np.empty(0) if p is None else np.log([p]) for p in reworded or [None] * n],
        generations=[said] * n,
        answers=["by the door"] * n,
    )
