"""Tasks of EleutherAI's lm-eval (WMDP, MMLU, ...) on a loaded model, as scores with intervals; needs the extra `lm-eval`."""

from __future__ import annotations

import math
import random
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import stats
from ..engine.randomness import private_randomness
from ..errors import ConfigError, UnmeasurableError
from ..records import Direction, Score

INSTALL = "pip install 'mlflow-unlearn[lm-eval]'"
HAZARDOUS = frozenset({"wmdp", "wmdp_bio", "wmdp_chem", "wmdp_cyber"})
"""Tasks that ask what should have been forgotten."""


@dataclass(frozen=True, kw_only=True)
class Harness:
    """Which tasks are run, and how."""

    tasks: tuple[str, ...]
    include: Path | None = None
    """Folder with the YAML files of further tasks."""
    limit: int | None = None
    """Only the first so many questions of each task; None: all."""
    shots: int | None = None
    """Examples before each question; None: as many as each task asks for."""
    chat: bool = False
    """Whether questions are put in the tokenizer's chat template."""
    batch_size: int = 8
    resamples: int = 1000
    seed: int = 0
    """Of the bootstrap and of the choice of examples."""
    forgotten: Collection[str] = HAZARDOUS
    """Tasks on which less is better."""


@dataclass(frozen=True, kw_only=True)
class TaskScores:
    """What lm-eval found."""

    scores: Mapping[str, Score]
    """`task/measure`, and `task/measure/filter` where the task filters answers."""
    absent: Mapping[str, str] = field(default_factory=dict)
    """Measures that have no interval -> why."""
    versions: Mapping[str, str] = field(default_factory=dict)
    """Of lm-eval and of each task: scores of different ones are not comparable."""


def run(model: Any, tokenizer: Any, harness: Harness) -> TaskScores:
    """Run tasks on a Hugging Face causal language model, which stays as it is.

    A measure that is a mean over questions gets the interval of every other mean here (exact for shares); for others, and for groups of tasks,
    which weigh their tasks, it is 1.96 of lm-eval's standard errors on either side. Tasks fetch their questions from the Hugging Face hub, unless
    their YAML names local files. A multiple-choice score does not show what the model would say unasked.

    Raises:
        UnmeasurableError: lm-eval is not installed.
        ConfigError: no such task, or its questions cannot be fetched.
    """
    if find_spec("lm_eval") is None:
        raise UnmeasurableError(f"lm-eval is not installed, so that {', '.join(harness.tasks)} cannot be run; {INSTALL}")
    found = _results(model, tokenizer, harness)
    scores, absent = {}, {}
    for entry in _entries(found):
        try:
            scores[entry.name] = entry.score(harness)
        except UnmeasurableError as error:
            absent[entry.name] = str(error)
    versions = {"lm-eval": version("lm_eval"), **{task: str(each) for task, each in found["versions"].items()}}
    return TaskScores(scores=scores, absent=absent, versions=versions)


def _results(model: Any, tokenizer: Any, harness: Harness) -> dict[str, Any]:
    from lm_eval import simple_evaluate  # type: ignore[import-not-found,unused-ignore]
    from lm_eval.models.huggingface import HFLM  # type: ignore[import-not-found,unused-ignore]
    from lm_eval.tasks import TaskManager  # type: ignore[import-not-found,unused-ignore]

    manager = TaskManager(include_path=str(harness.include) if harness.include else None)
    unknown = [task for task in harness.tasks if task not in manager.all_tasks]
    if unknown or not harness.tasks:
        raise ConfigError(f"lm-eval: no task called {', '.join(unknown) or '(none given)'}; `lm-eval ls tasks` lists them, --include adds a folder")
    try:
        with private_randomness(harness.seed), _own_draws():
            found: dict[str, Any] = simple_evaluate(
                model=HFLM(pretrained=model, tokenizer=tokenizer, batch_size=harness.batch_size),
                tasks=list(harness.tasks),
                task_manager=manager,
                num_fewshot=harness.shots,
                limit=harness.limit,
                apply_chat_template=harness.chat,
                bootstrap_iters=harness.resamples,
                random_seed=None,  # it would seed the whole process
                numpy_random_seed=None,
                torch_random_seed=None,
                fewshot_random_seed=harness.seed,
            )
    except (OSError, ValueError, KeyError) as error:
        raise ConfigError(
            f"lm-eval: {', '.join(harness.tasks)} could not be run ({type(error).__name__}); is the hub within reach, or are the questions local?"
        ) from error
    return found


@contextmanager
def _own_draws() -> Iterator[None]:
    """lm-eval draws from Python's own generator, which belongs to the caller."""
    state = random.getstate()
    try:
        yield
    finally:
        random.setstate(state)


@dataclass(frozen=True, kw_only=True)
class _Entry:
    """One measure of one task or group."""

    task: str
    measure: str
    filter: str
    value: Any
    error: Any
    n: int
    values: NDArray[np.float64]
    """One a question; empty for a group, and where a question has more than a number."""
    higher: bool

    @property
    def name(self) -> str:
        return "/".join((self.task, self.measure, *([] if self.filter == "none" else [self.filter])))

    def score(self, harness: Harness) -> Score:
        """With its interval.

        Raises:
            UnmeasurableError: there is none.
        """
        better = Direction.HIGHER if self.higher != (self.task in harness.forgotten) else Direction.LOWER
        if len(self.values) and np.isfinite(self.values).all() and math.isclose(self.values.mean(), self.value, abs_tol=1e-9):
            return stats.mean_score(self.values, better, harness.resamples, harness.seed)
        if not isinstance(self.error, float) or not self.error > 0.0:
            raise UnmeasurableError("lm-eval gives no standard error for it")
        value, reach = float(self.value), float(stats.normal_quantile(0.975) * self.error)
        return Score(value=value, low=value - reach, high=value + reach, n=self.n, direction=better, interval="normal")


def _entries(found: Mapping[str, Any]) -> Iterator[_Entry]:
    groups = found.get("groups", {})
    for task, measures in {**found["results"], **groups}.items():
        for key, value in measures.items():
            measure, _, kind = key.partition(",")
            if not kind or measure.endswith("_stderr") or not isinstance(value, float):
                continue
            samples = () if task in groups else found["samples"].get(task, ())
            values = _values(samples, measure, kind)
            yield _Entry(
                task=task,
                measure=measure,
                filter=kind,
                value=value,
                error=measures.get(f"{measure}_stderr,{kind}"),
                n=len(values) or int(measures.get("sample_len", 0)),
                values=values,
                higher=bool(found["higher_is_better"].get(task, {}).get(measure, True)),
            )


def _values(samples: Sequence[Mapping[str, Any]], measure: str, kind: str) -> NDArray[np.float64]:
    own = [sample[measure] for sample in samples if sample.get("filter") == kind and measure in sample]
    return np.array(own, dtype=np.float64) if all(isinstance(value, (int, float)) for value in own) else np.empty(0)
