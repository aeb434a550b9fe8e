"""Private signing keys: Ed25519 in encrypted files of this machine, or behind another package's entry point (a KMS, an HSM).

A file holds the public key as PEM, so that its key id can be read without the passphrase, and then the private one as encrypted PKCS#8. PBES2 as
OpenSSL writes it (AES-256, 2,048 rounds of PBKDF2) costs who guesses little: the passphrase itself has to be long.
"""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING

from .digests import retired_key_file
from .dsse import Signer
from .errors import ConfigError, TamperedError
from .verifier import key_id

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

PASSPHRASE = "MLFLOW_UNLEARN_PASSPHRASE"  # noqa: S105 - the name of the variable
GROUP = "mlflow_unlearn.signers"
"""Entry points by scheme; each is called with what follows the colon of `scheme:reference` and returns a `dsse.Signer`."""
SHORTEST, LONGEST = 12, 1000
"""Bytes of a passphrase; OpenSSL takes not many more."""
Passphrase = Callable[[str], bytes]
"""Holder -> the passphrase of the key."""
_HOLDER = r"[a-z0-9][a-z0-9._-]{0,62}"
_FILE = re.compile(rf"({_HOLDER})\.pem(\.retired-[0-9a-f]{{16}})?")


@dataclass(frozen=True, kw_only=True)
class KeyFile:
    """A private key of this machine, as far as it is known without its passphrase."""

    path: Path
    holder: str
    public: bytes
    """32 bytes."""
    retired: bool = False
    """It was rotated: another file holds the key in use."""

    @property
    def key_id(self) -> str:
        """sha256 of the public key as SubjectPublicKeyInfo, hex."""
        return key_id(self.public)


@dataclass(frozen=True, kw_only=True)
class FileSigner:
    """An unlocked key file."""

    key_id: str
    _key: Ed25519PrivateKey = field(repr=False)

    def sign(self, message: bytes) -> bytes:
        """Ed25519, 64 bytes."""
        return self._key.sign(message)


def check_holder(name: str) -> str:
    """The name of whoever holds a key: it is public, and the name of a file.

    Raises:
        ConfigError: another alphabet.
    """
    if not re.fullmatch(_HOLDER, name):
        if re.fullmatch(_HOLDER, name.lower()):
            raise ConfigError(f"holder '{name}': lower case only, e.g. {name.lower()}")
        raise ConfigError(
            "holder: expected 1 to 63 of a-z, 0-9, '.', '_' and '-', the first a letter or digit: a name that may be public, no address"
        )
    return name


def from_environment(holder: str) -> bytes:
    """The passphrase in MLFLOW_UNLEARN_PASSPHRASE.

    Raises:
        ConfigError: it is not set.
    """
    given = os.environ.get(PASSPHRASE)
    if not given:
        raise ConfigError(f"the key of {holder} needs its passphrase: set {PASSPHRASE}")
    return os.fsencode(given)


def keep_from_git(folder: Path) -> None:
    """Make a private folder that git does not see, in whatever repository it lies."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    if not (folder / ".gitignore").exists():
        (folder / ".gitignore").write_text("*\n")


def key_file(folder: Path, holder: str) -> Path:
    """Where the key in use of a holder lies."""
    return folder / f"{check_holder(holder)}.pem"


def create(folder: Path, holder: str, passphrase: Passphrase) -> KeyFile:
    """A new key of a holder; the folder keeps itself out of git.

    Raises:
        ConfigError: there is one already, or the passphrase is too short.
    """
    path = key_file(folder, holder)
    aside, public = _written_aside(path, passphrase(holder))
    try:
        path.hardlink_to(aside)  # unlike a rename it never replaces a file
    except FileExistsError:
        raise ConfigError(f"{path}: a key of {holder} is here already, and is not overwritten") from None
    finally:
        aside.unlink()
    return KeyFile(path=path, holder=holder, public=public)


def rotate(old: KeyFile, passphrase: Passphrase) -> KeyFile:
    """A new key in the place of `old`, which is kept beside it as `.retired-` and its id: a kill leaves both or the old one."""
    aside, public = _written_aside(old.path, passphrase(old.holder))
    try:
        retired = retired_key_file(old.path, old.key_id[:16])
        if not retired.exists():
            retired.hardlink_to(old.path)
        aside.replace(old.path)
    finally:
        aside.unlink(missing_ok=True)
    return KeyFile(path=old.path, holder=old.holder, public=public)


def found(folder: Path) -> tuple[KeyFile, ...]:
    """Every private key of a folder by holder, that in use before retired ones; none is unlocked.

    Raises:
        ConfigError: a file that `create` did not write.
    """
    return tuple(_known(path) for path in sorted(folder.glob("*.pem*")) if _FILE.fullmatch(path.name))


def unlock(file: KeyFile, passphrase: Passphrase) -> FileSigner:
    """The private key of a file.

    Raises:
        ConfigError: others may read the file, a wrong passphrase, or it is no encrypted PKCS#8 key.
        TamperedError: the public key in the file is another's.
    """
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    if file.path.stat().st_mode & 0o077:
        raise ConfigError(f"{file.path}: others may read this private key; run `chmod 600 {file.path}`")
    try:
        key = load_pem_private_key(file.path.read_bytes(), passphrase(file.holder))
    except TypeError:
        raise ConfigError(f"{file.path}: not encrypted; expected a file of `mlflow-unlearn key new`") from None
    except ValueError:
        raise ConfigError(f"{file.path}: wrong passphrase for the key of {file.holder}, or the file was cut short") from None
    if not isinstance(key, Ed25519PrivateKey):
        raise ConfigError(f"{file.path}: not an Ed25519 key; make one with `mlflow-unlearn key new`")
    if key.public_key().public_bytes_raw() != file.public:
        raise TamperedError(f"{file.path}: its public key is not that of its private key; restore the file")
    return FileSigner(key_id=file.key_id, _key=key)


def signer(reference: str, folder: Path, passphrase: Passphrase = from_environment) -> Signer:
    """Whoever a person means: the key in use of a holder, or `scheme:reference` of a package that reaches a KMS.

    Raises:
        ConfigError: no such key or scheme, with those that there are; or what `unlock` refuses.
    """
    scheme, colon, rest = reference.partition(":")
    if colon:
        return _foreign(scheme, rest)
    path = key_file(folder, reference)
    if not path.exists():
        here = ", ".join(dict.fromkeys(each.holder for each in found(folder))) or "none"
        raise ConfigError(f"{path}: no private key of {reference} here (there are: {here}); make one with `mlflow-unlearn key new {reference}`")
    return unlock(_known(path), passphrase)


def _foreign(scheme: str, rest: str) -> Signer:
    known = {entry.name: entry for entry in entry_points(group=GROUP)}
    if scheme not in known:
        raise ConfigError(f"signer {scheme}: no package here has an entry point of this name in {GROUP} (there are: {', '.join(known) or 'none'})")
    try:
        made = known[scheme].load()(rest)
    except (ImportError, AttributeError, SyntaxError) as error:
        raise ConfigError(f"signer {scheme}: cannot be imported ({known[scheme].value}): {error}") from error
    if not isinstance(made, Signer):
        raise ConfigError(f"signer {scheme}: gave a {type(made).__name__}; expected `key_id` and `sign`, as mlflow_unlearn.dsse.Signer says")
    return made


def _known(path: Path) -> KeyFile:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    try:
        key = load_pem_public_key(path.read_bytes())
    except ValueError:
        raise ConfigError(f"{path}: does not begin with its public key; expected a file of `mlflow-unlearn key new`") from None
    if not isinstance(key, Ed25519PublicKey):
        raise ConfigError(f"{path}: not an Ed25519 key; make one with `mlflow-unlearn key new`")
    holder, _, mark = path.name.rpartition(".pem")
    return KeyFile(path=path, holder=holder, public=key.public_bytes_raw(), retired=bool(mark))


def _written_aside(path: Path, passphrase: bytes) -> tuple[Path, bytes]:
    """A new key in a file beside `path` that only its owner can read, whole on the disk; and its public key."""
    if not SHORTEST <= len(passphrase) <= LONGEST:
        raise ConfigError(f"passphrase: expected {SHORTEST} to {LONGEST} characters; several random words are easy to type and hard to guess")
    private, public = _pem(passphrase)
    keep_from_git(path.parent)
    handle, aside = tempfile.mkstemp(dir=path.parent, prefix=".new-")  # mode 0600
    with os.fdopen(handle, "wb") as stream:
        stream.write(private)
        stream.flush()
        os.fsync(stream.fileno())
    return Path(aside), public


def _pem(passphrase: bytes) -> tuple[bytes, bytes]:
    """The content of a new key file, and the raw public key."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, PrivateFormat, PublicFormat

    key = Ed25519PrivateKey.generate()
    public = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(passphrase))
    return public + private, key.public_key().public_bytes_raw()
