"""`mlflow-unlearn benchmark`: the field's benchmarks on the command line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from .options import as_json, one_line_errors, respond

F = TypeVar("F", bound=Callable[..., Any])
_MODEL = "DIR|models:/NAME/VERSION|OWNER/NAME"
_POSITIVE = click.IntRange(min=1)


@click.group()
def benchmark() -> None:
    """TOFU, MUSE and the tasks of lm-eval: figures with intervals, and what is absent with its reason."""


def _models(command: F) -> F:
    """Which models, on what, and where the answer goes."""
    options = (
        click.option("--model", "unlearned", metavar=_MODEL, required=True, help="The model to be measured."),
        click.option("--original", metavar=_MODEL, help="The model before unlearning, to compare with."),
        click.option("--retrained", metavar=_MODEL, help="A model that never saw the forget set; forget quality and privacy leak need it."),
        click.option("--device", default="auto", show_default=True, help="As torch names it; auto: an accelerator where there is one."),
        click.option("--dtype", type=click.Choice(["float32", "bfloat16", "float16"]), default="float32", show_default=True, help="Of the weights."),
        click.option("--limit", type=_POSITIVE, help="Only the first so many records of each set."),
        click.option("--bootstrap", type=click.IntRange(min=100), default=1000, show_default=True, help="Resamples behind each interval."),
        click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Of the resamples."),
        click.option("--out", type=click.Path(path_type=Path, file_okay=False), help="Also write the figures into this folder."),
    )
    for option in reversed(options):
        command = option(command)
    return command


def _data(help_text: str) -> Callable[[F], F]:
    batch = click.option("--batch-tokens", type=_POSITIVE, default=16384, show_default=True, help="Most padded tokens in one pass.")
    data = click.option("--data", metavar="DIR|OWNER/NAME", required=True, help=help_text)
    return lambda command: data(batch(command))


@benchmark.command()
@_models
@_data("Folder with TOFU's files, or locuslab/TOFU.")
@click.option("--forget", type=click.Choice(["forget01", "forget05", "forget10"]), default="forget10", show_default=True, help="Which forget set.")
@click.option("--template", help="How a question is written: text with {prompt}, or `chat`. Default: `Question: {prompt}` and `Answer: ` below it.")
@click.option("--truth-ratio", type=click.Choice(["arithmetic", "geometric"]), default="arithmetic", show_default=True, help="Tables have geometric.")
@click.option("--max-new-tokens", type=_POSITIVE, default=200, show_default=True, help="Longest answer.")
@as_json
@one_line_errors
def tofu(forget: str, template: str | None, truth_ratio: Any, max_new_tokens: int, json_output: bool, **rest: Any) -> None:
    """Forget quality, model utility with its nine parts, and what is left of the forget set."""
    from ..commands import benchmarking as commands

    own = {} if template is None else {"template": template.replace("\\n", "\n")}
    asked = commands.TofuAsked(forget=forget, truth_ratio=truth_ratio, max_new_tokens=max_new_tokens, **own)
    respond("tofu", commands.tofu(_run(rest), asked), json_output)


@benchmark.command()
@_models
@_data("Folder with verbmem, knowmem and privleak, or muse-bench/MUSE-News or muse-bench/MUSE-Books.")
@as_json
@one_line_errors
def muse(json_output: bool, **rest: Any) -> None:
    """Verbatim and knowledge memorization, and privacy leak."""
    from ..commands import benchmarking as commands

    respond("muse", commands.muse(_run(rest)), json_output)


@benchmark.command()
@_models
@click.option("--task", "names", multiple=True, required=True, help="A task of lm-eval, e.g. wmdp_bio or mmlu; may be given several times.")
@click.option("--include", type=click.Path(path_type=Path, exists=True, file_okay=False), help="Folder with the YAML files of further tasks.")
@click.option("--shots", type=click.IntRange(min=0), help="Examples before each question. Default: the task's own.")
@click.option("--chat", is_flag=True, help="Write questions in the tokenizer's chat template.")
@click.option("--batch-size", type=_POSITIVE, default=8, show_default=True, help="Questions in one pass.")
@as_json
@one_line_errors
def tasks(names: tuple[str, ...], json_output: bool, **rest: Any) -> None:
    """Tasks of lm-eval (needs the extra `lm-eval`)."""
    from ..adapters.lm_eval import Harness
    from ..commands import benchmarking as commands

    own = {key: rest.pop(key) for key in ("include", "shots", "chat", "batch_size")}
    harness = Harness(tasks=names, limit=rest["limit"], resamples=rest["bootstrap"], seed=rest["seed"], **own)
    respond("tasks", commands.tasks(_run(rest), harness), json_output)


def _run(options: dict[str, Any]) -> Any:
    """The models in the order in which they are shown."""
    from ..commands.benchmarking import Run

    named = {state: options.pop(state) for state in ("original", "unlearned", "retrained")}
    return Run(models={state: reference for state, reference in named.items() if reference}, **options)
