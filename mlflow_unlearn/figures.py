"""An evaluation as named numbers, the way MLflow shows them: `forget/probability`, `canaries/loss_auc`, `int4/canaries/remains`, `finetuned/...`."""

from __future__ import annotations

from .measurements import ModelReport
from .records import Evaluation

COMPARED = ("exact_match", "probability")
"""What is shown of the parent, of rounded states and of the fine-tuned one; evaluation.json among the artifacts has all of it."""
SET_NAMES = {"requested": "forget", "requested_paraphrased": "forget_paraphrased"}


def figures(evaluation: Evaluation) -> dict[str, float]:
    """Every figure worth a chart, by name; the unlearned model's own carry no prefix."""
    named = {f"utility/{name}": score.value for name, score in evaluation.utility.items()}
    named |= _of_state("before/", evaluation.before)
    named |= _of_state("", evaluation.after)
    for precision, report in evaluation.precisions.items():
        named |= _of_state(f"{precision}/", report)
    return named | _of_state("finetuned/", evaluation.after_finetune)


def _of_state(prefix: str, report: ModelReport) -> dict[str, float]:
    named: dict[str, float] = {}
    for name, scores in report.scores.items():
        shown = scores if not prefix else {metric: scores[metric] for metric in COMPARED if metric in scores}
        named |= {f"{prefix}{SET_NAMES.get(name, name)}/{metric}": score.value for metric, score in shown.items()}
    for test in report.canaries:
        named |= {f"{prefix}canaries/{test.attack}_auc": test.auc.value, f"{prefix}canaries/{test.attack}_epsilon": test.epsilon}
    for how, probe in report.probes.items():
        named |= {f"{prefix}probes/{how.replace(' ', '_')}/{test.attack.replace(' ', '_')}_auc": test.auc.value for test in probe.tests}
    return named | ({f"{prefix}canaries/remains": report.gap.share.value} if report.gap else {})
