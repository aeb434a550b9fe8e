"""One evaluation for MLflow: settings, models and rows to the figures of the stage `evaluate`, the verdict on them, and pictures."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from ..adapters.evaluation_rows import is_prepared, sets_of
from ..audit import AuditJob, Origin, State
from ..audit_sets import AuditSets
from ..deep import DeepAudited, deep_audit, wanted
from ..digests import write_document
from ..documents import encode
from ..errors import ConfigError, UnmeasurableError
from ..evaluate import EXCLUDED, INCLUDED, Subjects, report
from ..figures import figures
from ..judge import judge
from ..lineage import Parent
from ..measurements import ModelReport, Score
from ..policy import policy_digest
from ..power import Judged, power
from ..protocols import PartialMetric
from ..records import Claim, Evaluation, Outcome, Unlearned, Verdict
from ..roc import Roc, roc
from ..split import SETS
from . import evaluation_models as models
from .evaluation_settings import WHERE, Settings

OUTCOMES = {Outcome.PASS: 1.0, Outcome.INCONCLUSIVE: 0.0, Outcome.FAIL: -1.0}
"""A verdict as a number, so that a threshold of 1 asks for PASS."""
RETRAINED = "retrained"
_GRID = 1001
"""False positive rates at which a ROC curve is drawn, a thousandth apart."""


@dataclass(frozen=True, kw_only=True)
class Evaluated:
    """What one evaluation found."""

    settings: Settings
    evaluation: Evaluation
    verdicts: tuple[Verdict, ...]
    """None without a policy."""
    seen: Mapping[str, Subjects]
    """State -> set -> what was said."""
    reports: Mapping[str, ModelReport]
    """States that are shown side by side: before, after, after the benign fine-tune, and retrained where there is such a model."""
    model_id: str | None
    """MLflow's logged model that was looked at, if it is one."""

    @cached_property
    def metrics(self) -> dict[str, float]:
        """By the names under which a registration logs them; verdicts as `OUTCOMES`."""
        named = figures(self.evaluation) | {f"verdict/{each.effect.value}": OUTCOMES[each.outcome] for each in self.verdicts}
        if RETRAINED in self.reports:
            shown = figures(replace(self.evaluation, before=self.reports[RETRAINED]))  # named as those of the parent are, whom it stands beside
            named |= {f"{RETRAINED}/{name.removeprefix('before/')}": value for name, value in shown.items() if name.startswith("before/")}
        return named

    def write(self, folder: Path) -> dict[str, Path]:
        """Documents and pictures into a folder: name -> file. Counts, figures and digests; nothing of a row."""
        document = folder / "evaluation.json"
        write_document(document, "mlflow-unlearn.evaluation/1", encode(self.evaluation))
        found = {"evaluation": document}
        if self.verdicts:
            found["verdict"] = folder / "verdict.json"
            vouched = encode(self.settings.asked.vouched)
            write_document(found["verdict"], "mlflow-unlearn.verdict/1", {"vouched": vouched, "verdicts": encode(self.verdicts)})
        return found | self._draw(folder)

    def _draw(self, folder: Path) -> dict[str, Path]:
        from ..adapters import plots  # matplotlib, which the figures do without

        known = {state: self.reports[state].scores.get(INCLUDED, {}).get("probability") for state in ("before", RETRAINED) if state in self.reports}
        drawn = {
            "knowledge": plots.knowledge(self.reports),
            **{f"roc_{name}": plots.roc_curves(name, curves, self._areas(name)) for name, curves in self._rocs()},
            "relearning": plots.relearning(self.evaluation.curves, {state: score for state, score in known.items() if score is not None}),
            "power": self._power(plots),
        }
        found = {name: (figure, folder / f"{name}.png") for name, figure in drawn.items() if figure is not None}
        for figure, path in found.values():
            plots.save(figure, path)
        return {name: path for name, (_, path) in found.items()}

    def _rocs(self) -> Iterator[tuple[str, dict[str, Roc]]]:
        """Attack -> state -> curve, of those that could be measured."""
        for name, attack in self.settings.measures.attacks.items():
            curves = {}
            for state in self.reports:
                subjects = self.seen[state]
                try:
                    curves[state] = roc(attack.suspicion(subjects[INCLUDED]), attack.suspicion(subjects[EXCLUDED]), _GRID)
                except (UnmeasurableError, KeyError):
                    continue
            if curves:
                yield name, curves

    def _areas(self, attack: str) -> dict[str, Score]:
        return {state: test.auc for state, each in self.reports.items() for test in each.canaries if test.attack == attack}

    def _power(self, plots: Any) -> Any:
        pool = sum(len(self.seen["after"][name].answers) for name in (INCLUDED, EXCLUDED) if name in self.seen["after"])
        if not pool:
            return None
        judged = Judged(
            attacks=max(1, len(self.settings.params.attacks)), states=len(self.settings.precisions) + 1, attempt=self.settings.asked.vouched.attempt
        )
        return plots.power_curve([power(size, self.settings.policy, judged) for size in range(50, max(1600, 2 * pool) + 1, 10)], pool)


def run(settings: Settings, frame: Any, model: Any, digest: str, aside: Path) -> Evaluated:
    """Evaluate one model.

    Args:
        settings: what evaluator_config says.
        frame: the rows, a pandas frame.
        model: what MLflow loaded; None where evaluator_config names the model.
        digest: of the data, as MLflow gives it.
        aside: an empty folder for this evaluation's own files.

    Raises:
        ConfigError: a model is missing or cannot be had, or an ensemble is asked without keyed tags.
        DataError: the rows are not what is expected, or a never-trained one was trained on.
        UnlearnError: a model answers with what are not numbers.
    """
    asked = settings.asked
    parent = models.find(asked.parent, asked.device, aside / "parent")
    looked_at = _model(settings, model, aside)
    retrained = None if asked.retrained is None else models.find(asked.retrained, asked.device, aside / RETRAINED)
    if (parent.origin.many or looked_at.origin.many) and not is_prepared(frame):
        raise ConfigError(f"{WHERE}: an ensemble is asked by the keyed tag of whom a record is about; give the rows of build/raw/sets, which have it")
    job = AuditJob(
        parent=parent.origin,
        model=looked_at.origin,
        reference=_reference(settings, retrained, {parent.origin.digest, looked_at.origin.digest}, aside),
        sets=_sets(settings, frame),
        measures=settings.measures,
        params=settings.params,
        precisions=settings.precisions,
    )
    found = deep_audit(job)
    evaluation = _evaluation(settings, found, Parent(model=parent.version, tensor_digest=parent.origin.digest, datasets=()), looked_at.origin, digest)
    seen = dict(found.audited.subjects)
    reports = {"before": evaluation.before, "after": evaluation.after, "after_finetune": evaluation.after_finetune}
    if retrained is not None:
        seen[RETRAINED], reports[RETRAINED] = _beside(job, retrained.origin)
    return Evaluated(
        settings=settings,
        evaluation=evaluation,
        verdicts=_verdicts(settings, evaluation, looked_at.origin) if settings.judged else (),
        seen=seen,
        reports={state: each for state, each in reports.items() if state in seen},
        model_id=looked_at.model_id,
    )


def _model(settings: Settings, model: Any, aside: Path) -> models.Given:
    asked = settings.asked
    if asked.model is not None:
        return models.find(asked.model, asked.device, aside / "model")
    if model is None:
        raise ConfigError(
            f"{WHERE}: no model to evaluate; give `model` to mlflow.models.evaluate, or a URI, a folder or a pair as '{WHERE}[\"model\"]'"
        )
    return models.loaded(model, asked.device, aside / "model")


def _reference(settings: Settings, retrained: models.Given | None, taken: Collection[str], aside: Path) -> Origin | None:
    """What attacks compare with: as named, else the retrained model."""
    named = settings.params.reference
    found = retrained if named is None else models.find(named, settings.asked.device, aside / "reference")
    if found is not None and found.origin.digest in taken:
        key = "retrained" if named is None else "reference"
        raise ConfigError(
            f"{WHERE}: {key}: these are the weights of the parent, or of the model in question; name a model that never saw the records"
        )
    return None if found is None else found.origin


def _sets(settings: Settings, frame: Any) -> AuditSets:
    asked = settings.asked
    sets = AuditSets.of(sets_of(frame, asked.set_column, SETS, asked.columns), asked.template, settings.params, asked.kept_sample)
    partial = any(isinstance(metric, PartialMetric) for metric in settings.measures.metrics.values())
    return sets.with_other_answers() if partial else sets


def _beside(job: AuditJob, origin: Origin) -> tuple[Subjects, ModelReport]:
    """A retrained model through the same sets; compared with nothing, since it is what others are compared with."""
    state = State(name=RETRAINED, origin=origin)
    subjects = state.subjects(replace(job, reference=None))
    found = report(subjects, job.measures)
    state.release()
    return subjects, found


def _evaluation(settings: Settings, found: DeepAudited, parent: Parent, model: Origin, digest: str) -> Evaluation:
    seen, vouched = found.audited, settings.asked.vouched
    return Evaluation(
        requests=(),
        parent=parent,
        unlearned=model.digest,
        split_digest=digest,
        attempt=vouched.attempt,
        pool_spent_by=vouched.pool_spent_by,
        before=seen.before,
        after=seen.after,
        after_finetune=seen.after_finetune,
        precisions=seen.precisions,
        utility=seen.utility,
        paraphrase_gap=seen.paraphrase_gap,
        canaries_committed=vouched.committed,
        curves=found.curves,
        policy=policy_digest(settings.policy) if settings.judged else "",
        first_policy=vouched.first_policy,
        settings=encode(settings.params) | {"probes": list(wanted(settings.params))},
    )


def _verdicts(settings: Settings, evaluation: Evaluation, model: Origin) -> tuple[Verdict, ...]:
    """What the policy says; an ensemble's claim is exact, and its evidence lies in the repository that made it."""
    made = Unlearned(
        requests=(),
        parent=evaluation.parent,
        tensor_digest=evaluation.unlearned,
        split_digest=evaluation.split_digest,
        method={},
        claim=Claim.EXACT if model.many else Claim.APPROXIMATE,
        steps=0,
        seconds=0.0,
        stopped="not known here",
    )
    return judge(evaluation, settings.policy, made)
