"""What `key` does: keys that sign, and the trust file that says what they may sign, as functions from arguments to JSON-ready documents."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from .. import signing_keys, trust
from ..config import Settings, settings
from ..documents import encode, moment
from ..dsse import Signer
from ..errors import ConfigError, TamperedError
from ..reasons import REVOCATIONS
from ..signing_keys import KeyFile, Passphrase, from_environment
from ..stages import trusting
from ..stages.signing import signer_for, usable_keys
from ..stages.workbench import Workbench
from ..statements import Role, Trust, TrustedKey

POLICY = Path("policy.yaml")
_LOOK = "look through `key show --all`, and tell the new key id to whoever verifies: the owner's key had run out, so nobody vouched for this file"
_AGAIN = "have signed again, before the old key ends, what it signed and is still in use: from then on it does not count"


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """A key to be made or added."""

    holder: str
    roles: tuple[Role, ...] = ()
    days: int = trust.DAYS


@dataclass(frozen=True, kw_only=True)
class Owner:
    """Who signs a change of the trust file."""

    reference: str = ""
    """A holder or `scheme:reference`; empty: the one owner whose key is here."""
    passphrase: Passphrase = from_environment


def new_key(wanted: Wanted, owner: Owner) -> dict[str, Any]:
    """Make a key and enter it; the first one begins the trust file. Where no owner's key is here, an owner enters it with `key add`.

    Raises:
        ConfigError: a wrong holder, role or passphrase, or the holder has a trusted key here already.
    """
    bench, now = Workbench(), trust.this_second()
    here = bench.settings
    with trust.turn(here.state):
        before = trusting.held(bench) if here.trust_file.exists() else None
        trust.trusted(bytes(32), wanted.holder, wanted.roles, wanted.days, now)  # complains before a key is made
        if before is None:
            return _begin(wanted, bench, owner, now)
        waiting = _waiting(wanted.holder, here, before)
        signer = _owner_if_any(here, owner)
        file = waiting or signing_keys.create(here.key_folder, wanted.holder, owner.passphrase)
        line = trust.trusted(file.public, wanted.holder, wanted.roles, wanted.days, now)
        if signer is None:
            return _about(line, here, None, [_backup(file), _ask_owner(line)])
        after = trusting.change(bench, trust.with_key(before, line, now), [signer])
    return _about(line, here, after, [_backup(file), *_then(bench, after)])


def add_key(public: str, wanted: Wanted, owner: Owner) -> dict[str, Any]:
    """Enter somebody's public key, which was made on another machine.

    Raises:
        ConfigError: not a public key, or it is there already.
    """
    bench, now = Workbench(), trust.this_second()
    here = bench.settings
    line = trust.trusted(trust.public_key(public), wanted.holder, wanted.roles, wanted.days, now)
    with trust.turn(here.state):
        after = trust.with_key(trusting.held(bench), line, now)
        after = trusting.change(bench, after, [_owner(here, owner)])
    return _about(line, here, after, [f"compare the key id with {line.holder} by another way than this one", *_then(bench, after)])


def rotate_key(holder: str, days: int, overlap: timedelta, owner: Owner) -> dict[str, Any]:
    """A new key of the same holder and roles; the old one ends. Repeating it after a kill finishes what was begun. Where no owner's key is here, an
    owner enters the new one with `key add`, and the old one signs until then.

    Raises:
        ConfigError: the holder's key is not here, or not in the trust file.
    """
    bench, now = Workbench(), trust.this_second()
    here = bench.settings
    with trust.turn(here.state):
        before = trusting.held(bench, though_expired=True)
        old, waiting = _in_use(holder, here, before)
        ran_out, signer = _problem(here.trust_file) is not None, _owner_if_any(here, owner)
        new = waiting or signing_keys.rotate(old, owner.passphrase)
        former = next(each for each in before.keys if each.key_id == old.key_id)
        line = trust.trusted(new.public, holder, former.roles, days, now)
        signers: list[Signer] = [signer] if signer else []
        if Role.OWNER in line.roles and (signer or ran_out):
            signers.insert(0, signing_keys.unlock(new, owner.passphrase))
        if not signers:
            return _about(line, here, None, [_backup(new), _ask_owner(line)])
        after = trusting.change(bench, trust.rotated(before, former.key_id, line, now, overlap), signers)
    ended = next(each for each in after.keys if each.key_id == former.key_id)
    return _about(line, here, after, [*([_LOOK] if ran_out else []), _backup(new), _AGAIN, *_then(bench, after)]) | {"ended": _line(ended, now)}


def revoke_key(reference: str, reason: str, owner: Owner) -> dict[str, Any]:
    """Let a key, or every key of a holder, no longer count, nor anything it ever signed.

    Raises:
        ConfigError: no such key, an unknown reason, or no owner would be left.
    """
    bench, now = Workbench(), trust.this_second()
    here = bench.settings
    if reason not in REVOCATIONS:
        raise ConfigError(f"key revoke: expected one of {', '.join(REVOCATIONS)}")
    with trust.turn(here.state):
        before = trusting.held(bench)
        lines = _meant(reference, before)
        if reason == "superseded" and len(lines) > 1:
            ids = ", ".join(each.key_id[:16] for each in lines)
            raise ConfigError(f"key revoke: {reference} has {len(lines)} keys ({ids}); name the one that another took the place of")
        after = trusting.change(bench, trust.revoked(before, [each.key_id for each in lines], reason, now), [_owner(here, owner)])
    gone = [_line(each, now) for each in after.keys if each.key_id in {line.key_id for line in lines}]
    again = "nothing that was signed with it counts any more: have another key sign again what is still in use"
    return {"revoked": gone, **_file(here, after), "next": [again, *_then(bench, after)]}


def trust_policy(owner: Owner, another_ledger: bool = False) -> dict[str, Any]:
    """Let an owner stand for policy.yaml and `data` of params.yaml as they lie in the current folder, and for the ledger.

    Args:
        owner: who signs.
        another_ledger: go on with this ledger, although it is not the one that the trust file names.

    Raises:
        ConfigError: there is no policy.yaml, or a file has a mistake.
        LedgerError: it is another ledger.
    """
    bench, now = Workbench(), trust.this_second()
    here, found = bench.settings, trusting.pins(bench)
    if not found.policy_file:
        raise ConfigError(f"{POLICY}: not there; change to the folder of the policy that the gate reads")
    with trust.turn(here.state):
        before = trusting.held(bench, another_ledger=another_ledger)
        found = found if found.data else replace(found, data=before.data)
        unnamed = before.ledger is None and trusting.ledger_of(bench) is not None
        changed = another_ledger or unnamed or found != trust.pins_of(before)
        after = before
        if changed:
            after = trusting.change(bench, trust.with_pins(before, found, now), [_owner(here, owner)])
    return {"changed": changed, **_file(here, after), "next": _then(bench, after) if changed else []}


def show_keys(everything: bool = False) -> dict[str, Any]:
    """The trust file as it is, and which private keys are here; `problem` says why nothing is believed now, where that is so.

    Args:
        everything: keys that have ended or were revoked too.
    """
    here, now = settings(), trust.this_second()
    held = trust.held(here.trust_file, though_expired=True)
    files = {each.key_id: each for each in signing_keys.found(here.key_folder)}
    lines = [_line(each, now) for each in held.keys]
    for line in lines:
        file = files.pop(line["key_id"], None)
        line |= {"private_key": file and _shown(file.path), "retired": file and file.retired}
    untrusted = [{"holder": each.holder, "key_id": each.key_id, "public": each.public.hex(), "file": _shown(each.path)} for each in files.values()]
    return {
        **_file(here, held),
        "issued_at": moment(held.issued_at),
        "keys": [line for line in lines if everything or line["state"] in ("valid", "not yet valid")],
        "hidden": 0 if everything else sum(line["state"] in ("expired", "revoked") for line in lines),
        "not_in_trust_file": untrusted,
        "problem": _problem(here.trust_file),
    }


def _begin(wanted: Wanted, bench: Workbench, owner: Owner, now: datetime) -> dict[str, Any]:
    """The first key, and the trust file that it signs."""
    here, pins = bench.settings, trusting.pins(bench)
    trust.begun(trust.trusted(bytes(32), wanted.holder, wanted.roles, wanted.days, now), pins, now)  # complains before a key is made
    path = signing_keys.key_file(here.key_folder, wanted.holder)
    kept = [each for each in signing_keys.found(here.key_folder) if each.path == path]
    file = kept[0] if kept else signing_keys.create(here.key_folder, wanted.holder, owner.passphrase)
    line = trust.trusted(file.public, wanted.holder, wanted.roles, wanted.days, now)
    after = trusting.change(bench, trust.begun(line, pins, now), [signing_keys.unlock(file, owner.passphrase)])
    tell = "tell this key id to whoever will verify, by another way than this repository: who replaces trust.json can replace it there too"
    return _about(line, here, after, [tell, _backup(file), *_then(bench, after)])


def _owner(here: Settings, owner: Owner) -> Signer:
    return signer_for(Role.OWNER, trust.read_trust(here.trust_file), here, owner.passphrase, owner.reference)


def _owner_if_any(here: Settings, owner: Owner) -> Signer | None:
    """Whoever was named, else an owner whose key is here; nobody where the trust file has run out or no owner is here."""
    if _problem(here.trust_file):
        return None
    named = owner.reference or here.signer or usable_keys(Role.OWNER, trust.read_trust(here.trust_file), here)
    return _owner(here, owner) if named else None


def _waiting(holder: str, here: Settings, held: Trust) -> KeyFile | None:
    """A key of the holder that was made here and never entered: by a run that was cut short, or where no owner was."""
    path, listed = signing_keys.key_file(here.key_folder, holder), {each.key_id for each in held.keys}
    file = next((each for each in signing_keys.found(here.key_folder) if each.path == path), None)
    if file and file.key_id in listed:
        raise ConfigError(f"{_shown(path)}: {holder} has a key here already; `mlflow-unlearn key rotate {holder}` makes the next one")
    return file


def _in_use(holder: str, here: Settings, held: Trust) -> tuple[KeyFile, KeyFile | None]:
    """The key that is to be replaced, and the next one where a rotation was cut short after it was made."""
    listed = {each.key_id for each in held.keys if each.revoked_at is None}
    files = [each for each in signing_keys.found(here.key_folder) if each.holder == signing_keys.check_holder(holder)]
    current = next((each for each in files if not each.retired), None)
    if current and current.key_id in listed:
        return current, None
    retired = [each for each in files if each.retired and each.key_id in listed]
    if not retired:
        raise ConfigError(f"key rotate: no trusted key of {holder} is here; rotate it where it lies, or `key revoke` it and make another one")
    ends = {each.key_id: each.valid_until for each in held.keys}
    return max(retired, key=lambda each: ends[each.key_id]), current


def _meant(reference: str, held: Trust) -> list[TrustedKey]:
    """The keys of a holder, or the one whose id begins so, that were not revoked yet."""
    named = [each for each in held.keys if each.holder == reference or (len(reference) >= 16 and each.key_id.startswith(reference.lower()))]
    lines = [each for each in named if each.revoked_at is None]
    if not lines:
        why = "was revoked already" if named else "not in the trust file; give a holder or at least 16 characters of a key id"
        raise ConfigError(f"key revoke: {reference}: {why}; see `mlflow-unlearn key show --all`")
    return lines


def _problem(path: Path) -> str | None:
    try:
        trust.read_trust(path)
    except (ConfigError, TamperedError) as error:
        return str(error)
    return None


def _line(key: TrustedKey, now: datetime) -> dict[str, Any]:
    """A key and what it is worth now."""
    if key.revoked_at is not None:
        state = "revoked"
    elif now < key.valid_from:
        state = "not yet valid"
    else:
        state = "valid" if now < key.valid_until else "expired"
    return {**encode(key), "state": state}


def _about(line: TrustedKey, here: Settings, after: Trust | None, steps: list[str]) -> dict[str, Any]:
    """A key that was made or entered; without `after` it is in no trust file yet."""
    told: dict[str, Any] = {"trust_file": None} if after is None else _file(here, after)
    return {"key": _line(line, line.valid_from), **told, "next": steps}


def _file(here: Settings, held: Trust) -> dict[str, Any]:
    """The trust file in short; `policy` compares with the current folder."""
    found = trust.policy_file(POLICY)
    policy = {"trusted": held.policy_file or None, "here": found or None, "same": found == held.policy_file}
    return {"trust_file": _shown(here.trust_file), "number": held.number, "policy": policy}


def _ask_owner(line: TrustedKey) -> str:
    roles = " ".join(f"--role {role}" for role in line.roles)
    return f"let an owner enter it: mlflow-unlearn key add {line.public} --holder {line.holder} {roles}"


def _backup(file: KeyFile) -> str:
    return f"back up {_shown(file.path)} and its passphrase, apart from each other"


def _then(bench: Workbench, after: Trust) -> list[str]:
    """What is left to do after a change."""
    pinned = {"policy.yaml": after.policy_file, "data in params.yaml": after.data, "the ledger": after.ledger}
    steps = [f"git add {_shown(bench.settings.trust_file)} && git commit"]
    if missing := [name for name, value in pinned.items() if not value]:
        steps.append(
            f"no owner stands for {', '.join(missing)} yet, so the gate says yes to nothing: after `init`, `mlflow-unlearn key trust-policy`"
        )
    elif trusting.ledger_of(bench) is None:
        steps.append("the ledger does not know of this change yet: run `mlflow-unlearn key trust-policy` where the tag key is")
    return steps


def _shown(path: Path) -> str:
    """From the current folder where that is no detour."""
    near = os.path.relpath(path)
    return near if len(near) < len(str(path)) else str(path)
