"""Who signs here: the private key of this machine, or the KMS, that the trust file lists with the role that is asked for."""

from __future__ import annotations

from datetime import UTC, datetime

from .. import signing_keys
from ..config import Settings
from ..dsse import Signer
from ..errors import ConfigError
from ..signing_keys import KeyFile, Passphrase, from_environment
from ..statements import Role
from ..verifier import Trust


def signer_for(role: Role, trust: Trust, settings: Settings, passphrase: Passphrase = from_environment, reference: str = "") -> Signer:
    """The signer for a role: `reference`, else MLFLOW_UNLEARN_SIGNER, else the one key here that may.

    Raises:
        ConfigError: nobody here may, several may, or a wrong passphrase; says what to do.
    """
    if named := reference or settings.signer:
        signer = signing_keys.signer(named, settings.key_folder, passphrase)
        if why := _refusal(signer.key_id, role, trust):
            raise ConfigError(f"signer {named}: key {signer.key_id[:16]} {why}; see `mlflow-unlearn key show --all`")
        return signer
    usable = usable_keys(role, trust, settings)
    if not usable:
        raise ConfigError(_nobody(role, trust, settings))
    if len(usable) > 1:
        names = ", ".join(each.holder for each in usable)
        raise ConfigError(f"several keys here may sign as {role}: {names}; set MLFLOW_UNLEARN_SIGNER to one of them")
    return signing_keys.unlock(usable[0], passphrase)


def usable_keys(role: Role, trust: Trust, settings: Settings) -> tuple[KeyFile, ...]:
    """Key files here that the trust file lists with a role now, one a holder: a retired one only where the key in use is not listed."""
    listed = [each for each in signing_keys.found(settings.key_folder) if not _refusal(each.key_id, role, trust)]
    first = {each.holder: each for each in sorted(listed, key=lambda each: each.retired, reverse=True)}
    return tuple(first.values())


def _refusal(key_id: str, role: Role, trust: Trust) -> str:
    key = trust.keys.get(key_id)
    return "is not in the trust file" if key is None else key.refusal(role, datetime.now(UTC))


def _nobody(role: Role, trust: Trust, settings: Settings) -> str:
    here = [f"the key {each.key_id[:16]} of {each.holder} {_refusal(each.key_id, role, trust)}" for each in signing_keys.found(settings.key_folder)]
    return (
        f"no key here may sign as {role} ({'; '.join(here) or f'{settings.key_folder} holds none'}); make one with "
        f"`mlflow-unlearn key new HOLDER --role {role}`, or set MLFLOW_UNLEARN_SIGNER"
    )
