"""The answer about a certificate: yes, no or could not decide, with what was checked and what nobody can check from here."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

from . import merkle
from .documents import RefusedError, UndecidedError, read_json
from .envelopes import IN_TOTO, Statement, Trust, open_envelope, read_statement, read_trust
from .model_files import Tell, check_model
from .rules import outcome, policy_digest, recount

T = TypeVar("T")
CERTIFICATE = "https://mlflow-unlearn.dev/certificate/v1"
PROOFS = "mlflow-unlearn.proofs/1"
SAID = {
    *("registered", "parent", "requests", "commitments", "split", "unlearned", "evaluation", "policy", "policy_file", "verdicts", "not_claimed"),
    *("code", "environment", "lock", "ledger", "issued_at", "expires_at"),
}
"""The keys of a certificate of this version."""
REGISTERED = {"name", "version", "run_id", "created_at"}
"""What tells one registered version from any other."""
NOT_CHECKED = (
    "that order and values were measured on this model: they are the evaluator's word; measuring again needs model and data",
    "scores of other metrics, which decide nothing but whether a fine-tuned or rounded state is wrecked, and how losses were calibrated",
    "that logs, replays and digests of shards, the parent's too, are true: train a shard again to see",
    "when anything was signed: moments are the signers' own word",
    "that no copy of the records is elsewhere: see `not_claimed` in the certificate",
)


@dataclass(frozen=True, kw_only=True)
class Case:
    """What is handed in; the certificate alone can be counted again, but says nothing about who signed it."""

    certificate: bytes
    trust: bytes | None = None
    owner: str | None = None
    """Key id, or its first 16 characters or more, of the owner who must have signed the trust file."""
    model: Path | None = None
    policy: bytes | None = None
    """policy.yaml."""
    proofs: bytes | None = None
    """Proofs that leaves are absent from what was retained, as `mlflow-unlearn commitment prove` writes them."""
    registered: Mapping[str, Any] | None = None
    """Name, version, run and moment of creation that the certificate must be about."""


@dataclass(frozen=True, kw_only=True)
class Report:
    """The answer."""

    answer: str
    """`yes`, `no` or `undecided`."""
    reasons: tuple[str, ...]
    """Everything that does not hold or could not be decided."""
    about: Mapping[str, str]
    outcomes: Mapping[str, str]
    """Effect -> verdict, counted again."""
    checked: tuple[str, ...]
    not_checked: tuple[str, ...]


@dataclass
class _Findings:
    """What was found so far, so that one broken thing does not hide another."""

    checked: list[str] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    undecided: list[str] = field(default_factory=list)

    def check(self, what: str, work: Callable[[], Any]) -> Any:
        """The result of `work`, or None with the reason kept."""
        try:
            found = in_shape(work, what)
        except RefusedError as error:
            self.refused.append(str(error))
        except UndecidedError as error:
            self.undecided.append(str(error))
        except OSError as error:
            self.undecided.append(f"{error.filename}: {error.strerror}")
        else:
            self.checked.append(what)
            return found
        return None


def in_shape(work: Callable[[], T], what: str = "certificate") -> T:
    """The result of `work` on a document that may be anything.

    Raises:
        RefusedError, UndecidedError: as `work` says; also where the document lacks what is asked of it.
    """
    try:
        return work()
    except (RefusedError, UndecidedError):
        raise
    except (KeyError, TypeError, ValueError, AttributeError, IndexError, ArithmeticError, RecursionError, MemoryError) as error:
        raise UndecidedError(f"{what}: not in the shape of a certificate of this version ({type(error).__name__} {str(error)[:60]})") from None


def verify(case: Case, now: datetime, tell: Tell = lambda _done, _all: None) -> Report:
    """Check everything that is handed in; nothing that was not is taken for granted."""
    found = _Findings()
    trust: Trust | None = None
    if case.trust is None:
        found.undecided.append("no trust file: nobody can say whose signature this is; give the one of whoever issued it")
    else:
        trust = found.check("the trust file is signed by an owner", lambda: read_trust(case.trust or b"", now, case.owner))
    statement = _statement(case, trust, now, found)
    predicate = statement.predicate if isinstance(statement, Statement) else statement or {}
    outcomes: dict[str, str] = {}
    if predicate:
        found.check("requests, parent, split, policy and data agree throughout", lambda: _agree(predicate, case))
        outcomes = found.check("epsilon, limits, p-values and the verdict follow from ranks, counts and values", lambda: _verdicts(predicate)) or {}
        found.check("the verdict is PASS for what each request asks", lambda: _passed(predicate, outcomes)) if outcomes else None
        if trust is not None and (stood_for := trust.policy):
            found.check("the owner stands for the values of the policy", lambda: _owners_policy(predicate, stood_for))
    if isinstance(statement, Statement):
        found.check("the weights that were measured are the weights of the subject", lambda: _same_weights(statement))
        if (folder := case.model) is not None:
            found.check("the model's files are the subject, byte for byte", lambda: check_model(statement, folder, tell))
    if (policy := case.policy) is not None:
        found.check("policy.yaml is the one of the certificate and of the owner", lambda: _same_policy(policy, predicate, trust))
    if (proofs := case.proofs) is not None:
        found.check("the proofs hold against the root of what was retained", lambda: _absent(proofs, predicate))
    answer = "no" if found.refused else "undecided" if found.undecided or not predicate else "yes"
    return Report(
        answer=answer,
        reasons=(*found.refused, *found.undecided),
        about=_about(statement, predicate, trust),
        outcomes=outcomes,
        checked=tuple(found.checked),
        not_checked=(*_unchecked(case, trust), *NOT_CHECKED),
    )


def counted(statement: Statement, registered: Mapping[str, Any]) -> dict[str, str]:
    """Effect -> verdict, counted again, of a certificate whose signatures count, for callers who weigh the verdict themselves.

    Raises:
        RefusedError: it contradicts itself, its verdict, its subject or `registered`.
        UndecidedError: it is not in the shape of a certificate of this version.
    """
    in_shape(lambda: _agree(_of_this_kind(statement).predicate, Case(certificate=b"", registered=registered)))
    in_shape(lambda: _same_weights(statement))
    return in_shape(lambda: _verdicts(statement.predicate))


def _statement(case: Case, trust: Trust | None, now: datetime, found: _Findings) -> Statement | dict[str, Any] | None:
    """The certificate as signed; where nobody can be trusted, its predicate alone."""
    if trust is not None:
        statement: Statement | None = found.check(
            "a trusted evaluator signed it", lambda: _of_this_kind(read_statement(case.certificate, trust, "evaluator", now))
        )
        return statement

    def unsigned() -> dict[str, Any]:
        envelope = open_envelope(case.certificate, "certificate")
        document = read_json(envelope.payload, "certificate")
        if envelope.payload_type != IN_TOTO or document["predicateType"] != CERTIFICATE:
            raise UndecidedError("certificate: of another kind or version than this verifier reads")
        predicate: dict[str, Any] = document["predicate"]
        return predicate

    predicate: dict[str, Any] | None = found.check("the envelope can be read", unsigned)
    return predicate


def _of_this_kind(statement: Statement) -> Statement:
    if statement.kind != CERTIFICATE:
        raise UndecidedError(f"certificate: of kind {statement.kind[:80]}; this verifier reads {CERTIFICATE}")
    return statement


def _agree(predicate: Mapping[str, Any], case: Case) -> None:
    """All that a certificate says, and nothing else: one request list, one parent, one split, one set of data behind commitments and lineage."""
    if predicate.keys() != SAID:
        raise UndecidedError(f"certificate: {', '.join(sorted(predicate.keys() ^ SAID))} missing or unknown in this version")
    run, evaluation, split = predicate["unlearned"], predicate["evaluation"], predicate["split"]
    asked = sorted(each["request_id"] for each in predicate["requests"])
    if not asked or any(sorted(each["requests"]) != asked for each in (run, evaluation, split)):
        raise RefusedError("certificate: run, evaluation and split are not about the requests that it names")
    if any(predicate[each].keys() != REGISTERED for each in ("registered", "parent")):
        raise UndecidedError("certificate: it does not say by name, version, run and moment which versions it is about")
    named = {key: predicate["parent"][key] for key in ("name", "version")}
    if not run["parent"] == evaluation["parent"] == split["parent"] or run["parent"]["model"] != named:
        raise RefusedError("certificate: run, evaluation and split do not have the same parent")
    files = "[" + ",".join(f'"{split["files"][name]}"' for name in ("forget", "retain", "holdout")) + "]"
    if not hashlib.sha256(files.encode()).hexdigest() == split["digest"] == run["split_digest"]:
        raise RefusedError("certificate: the digest of the split is not that of its files, or the run was made on another split")
    committed = sorted(each["md5"] for each in predicate["commitments"]["revisions"])
    if committed != sorted(each["md5"] for each in run["parent"]["datasets"]):
        raise RefusedError("certificate: what is committed to is not what the parent was trained on")
    if case.registered is not None and dict(case.registered) != predicate["registered"]:
        name, version = (predicate["registered"][key] for key in ("name", "version"))
        raise RefusedError(f"certificate: issued for {name}/{version} of a run and a moment that are not this version's")


def _verdicts(predicate: Mapping[str, Any]) -> dict[str, str]:
    counted = {effect: outcome(conditions) for effect, conditions in recount(predicate).items()}
    stated = {each["effect"]: each["outcome"] for each in predicate["verdicts"]}
    if stated != counted:
        raise RefusedError(f"verdict: stated is {_shown(stated)}, the evidence gives {_shown(counted)}")
    return counted


def _passed(predicate: Mapping[str, Any], outcomes: Mapping[str, str]) -> None:
    asked = {each["effect"] for each in predicate["requests"]}
    if failed := sorted(effect for effect in asked if outcomes[effect] == "FAIL"):
        raise RefusedError(f"verdict: {', '.join(failed)} FAIL")
    if open_ := sorted(effect for effect in asked if outcomes[effect] != "PASS"):
        conditions = recount(predicate)
        unmet = sorted({name for effect in open_ for name, holds, _ in conditions[effect] if holds is not True})
        raise UndecidedError(f"verdict: {', '.join(open_)} INCONCLUSIVE; not shown: {', '.join(unmet)}")


def _shown(outcomes: Mapping[str, str]) -> str:
    return ", ".join(f"{effect} {found}" for effect, found in sorted(outcomes.items())) or "none"


def _same_weights(statement: Statement) -> None:
    whole: Mapping[str, Any] = next((each["digest"] for each in statement.subject if each["name"] == "."), {})
    if not whole.get("tensors") or whole["tensors"] != statement.predicate["unlearned"]["tensor_digest"]:
        raise RefusedError("certificate: its subject has other weights than those that were made and measured")


def _owners_policy(predicate: Mapping[str, Any], stood_for: str) -> None:
    if policy_digest(predicate["policy"]) != stood_for:
        raise UndecidedError("policy: judged under other values than the owner stands for now; ask for the trust file of then, or judge it again")


def _same_policy(policy: bytes, predicate: Mapping[str, Any], trust: Trust | None) -> None:
    found = hashlib.sha256(policy).hexdigest()
    if found != predicate["policy_file"]:
        raise RefusedError("policy.yaml: not the file that was in force when the certificate was issued")
    if trust is not None and trust.policy_file and found != trust.policy_file:
        raise RefusedError("policy.yaml: not the file that the owner stands for in the trust file")


def _absent(raw: bytes, predicate: Mapping[str, Any]) -> None:
    """Every leaf that is shown is absent from what was retained. Whose leaf it is can be told with the commitment key alone."""
    document, retain = read_json(raw, "proofs"), predicate["commitments"]["retain"]
    if document["schema"] != PROOFS or document["commitment"] != retain:
        raise RefusedError("proofs: not about the data that the certificate says were retained")
    head = merkle.Head(size=retain["size"], root=bytes.fromhex(retain["root"]))
    for number, each in enumerate(document["proofs"], start=1):
        if "left" not in each:
            raise RefusedError(f"proofs: number {number} shows that a leaf is there, not that it is absent")
        left, right = (None if side is None else _inclusion(side) for side in (each["left"], each["right"]))
        try:
            merkle.verify_absence(head, merkle.Absence(leaf=bytes.fromhex(each["leaf"]), left=left, right=right))
        except merkle.ProofError as error:
            raise RefusedError(f"proofs: number {number}: {error}") from None
    if not document["proofs"]:
        raise UndecidedError("proofs: there are none in it")


def _inclusion(side: Mapping[str, Any]) -> merkle.Inclusion:
    return merkle.Inclusion(leaf=bytes.fromhex(side["leaf"]), index=side["index"], path=tuple(map(bytes.fromhex, side["path"])))


def _about(statement: Statement | dict[str, Any] | None, predicate: Mapping[str, Any], trust: Trust | None) -> dict[str, str]:
    """What the certificate is about, as far as it can be read."""
    about: dict[str, str] = {}
    if isinstance(statement, Statement):
        about["statement"] = statement.digest
        about["signed by"] = ", ".join(f"{key.holder} ({key.key_id[:16]})" for key in statement.signers)
        about["issued, expires"] = f"{statement.issued_at:%Y-%m-%d}, {statement.expires_at:%Y-%m-%d}"
    if trust is not None:
        about["trust file by"] = ", ".join(trust.owners)
    registered, run = predicate.get("registered"), predicate.get("unlearned")
    if isinstance(registered, Mapping) and isinstance(run, Mapping):
        about["model"] = f"{registered.get('name')}/{registered.get('version')}"
        method = run.get("method")
        about["claim, method"] = f"{run.get('claim')}, {method.get('name') if isinstance(method, Mapping) else method}"
        asked = predicate.get("requests")
        about["requests"] = ", ".join(str(each.get("request_id")) for each in asked if isinstance(each, Mapping)) if isinstance(asked, list) else ""
    return about


def _unchecked(case: Case, trust: Trust | None) -> Iterator[str]:
    if trust is not None and case.owner is None:
        yield "whether this trust file is the owner's own: compare the key id with what you were told by another way (--owner)"
    if trust is not None and not trust.policy:
        yield "the policy: no owner stands for one"
    if case.model is None:
        yield "the model's files: none were given (--model)"
    if case.policy is None:
        yield "policy.yaml: not given (--policy); its values were read from the certificate"
    if case.proofs is None:
        yield "absence of anybody in particular from what was retained: no proofs were given (--proofs)"
