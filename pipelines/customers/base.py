"""Train what every shard starts from, on text without people: `python pipelines/customers/base.py` (stage `base`; reads `base:` of params.yaml).

It has seen nobody, so that nobody has to be removed from it. A team would take a pretrained model here.
"""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

from mlflow_unlearn.adapters import models
from mlflow_unlearn.config import load_params, read_yaml
from mlflow_unlearn.documents import decode
from mlflow_unlearn.engine.descent import fit
from mlflow_unlearn.params import OptimiserParams
from mlflow_unlearn.protocols import Example
from pipelines import files

BASES = Path("build/base")


@dataclass(frozen=True, kw_only=True)
class BaseParams:
    """The `base:` section of params.yaml."""

    init: dict[str, Any]
    """A transformers config."""
    optimiser: OptimiserParams
    vocabulary: int = 1024
    device: str = "auto"
    seed: int = 0


def main() -> None:
    """Train tokenizer and model on the corpus and save them."""
    started = time.monotonic()
    params = decode(BaseParams, read_yaml(Path("params.yaml")).get("base"), "params.yaml: base")
    project = load_params()
    data, out = project.data, BASES / project.data.name
    corpus = Path(data.path).parent / "tokenizer_corpus.txt"
    tokenizer = models.train_tokenizer(corpus, params.vocabulary, data.template)
    model = models.fresh_model(params.init, tokenizer, params.seed, params.device)
    lines = tokenizer(corpus.read_text(encoding="utf-8").splitlines())["input_ids"]
    examples = [Example(tokens=(*line, tokenizer.eos_token_id), prompt_length=1) for line in lines]
    loss = [done.losses["loss"] for done in fit(model, examples, params.optimiser, params.seed, tokenizer.pad_token_id)][-1]
    models.save_model(model, tokenizer, out)
    print(f"{out}: {len(lines)} lines without people, last loss {loss:.2f}, {time.monotonic() - started:.0f} s")


if __name__ == "__main__":
    files.script(main)
