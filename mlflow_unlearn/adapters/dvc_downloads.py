"""Objects that are on no disk here, brought into DVC's cache by DVC itself: from object stores and servers, and from repositories they came from."""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Collection, Sequence
from pathlib import Path

from dvc.exceptions import DvcException
from dvc.fs import DVCFileSystem, get_cloud_fs, localfs
from dvc.repo import Repo
from dvc_data.hashfile.hash import file_md5
from dvc_data.hashfile.hash_info import HashInfo

from ..errors import StoreError
from .dvc_locks import Import
from .dvc_remotes import Remote

_CLIENTS = {
    "aiohttp": "ClientError",
    "asyncssh": "Error",
    "azure.core.exceptions": "AzureError",
    "botocore.exceptions": "BotoCoreError",
    "google.auth.exceptions": "GoogleAuthError",
    "scmrepo.exceptions": "SCMError",
}
"""Libraries under DVC whose errors are neither DVC's nor the system's."""


class Downloads:
    """DVC at work for one project."""

    def __init__(self, project: Path) -> None:
        self._repo = Repo(str(project))

    def cached(self, md5: str) -> list[Path]:
        """Where DVC's cache would hold an object, whoever configured it."""
        return [Path(odb.oid_to_path(md5)) for odb in (self._repo.cache.local, self._repo.cache.legacy)]

    def pull(self, remote: Remote, md5s: Collection[str]) -> str | None:
        """Bring what a remote holds of these objects; why it could not be asked, or None."""
        return self._pulled(remote.name, dict(remote.options), md5s)

    def pull_user_wide(self, known: Collection[str], md5s: Collection[str]) -> list[str]:
        """The same from remotes that only the user's or the machine's configuration names."""
        own = {name: options for name, options in self._repo.config["remote"].items() if name not in known}
        return [complaint for name, options in sorted(own.items()) if (complaint := self._pulled(name, dict(options), md5s))]

    def take(self, each: Import, near: Sequence[Path]) -> str | None:
        """Bring an imported output from its own repository, at the revision that was imported; why it could not be, or None.

        Args:
            each: what was imported.
            near: folders that a relative URL may count from.
        """
        try:
            with tempfile.TemporaryDirectory(prefix="dvc-import-") as folder:
                return self._taken(each, _located(each.url, near), Path(folder))
        except _failures() as error:
            return f"{each.owner}: its repository does not answer ({_first_line(error)})"

    def _pulled(self, name: str, options: dict[str, str], md5s: Collection[str]) -> str | None:
        from dvc.data_cloud import Remote as Store

        try:
            kind, config, path = get_cloud_fs(self._repo.config, **options)
            if config.get("version_aware") or config.get("worktree"):
                return f"{name}: a cloud-versioned remote, which is not supported yet"
            store = Store(name, path, kind(**config), **config, tmp_dir=self._repo.site_cache_dir)
            for hash_name, odb in (("md5", store.odb), ("md5-dos2unix", store.legacy_odb)):
                odb.verify = True
                self._repo.cloud.pull([HashInfo(hash_name, md5) for md5 in md5s if not self._has(md5)], odb=odb)
        except _failures() as error:
            return f"{name}: {_first_line(error)}"
        return None

    def _has(self, md5: str) -> bool:
        return any(path.is_file() for path in self.cached(md5))

    def _taken(self, each: Import, url: str, folder: Path) -> str | None:
        """Copy, hash, and keep only what has the md5 that was recorded."""
        source = DVCFileSystem(repo=url, rev=each.revision, subrepos=True)
        root = f"/{each.path.strip('/')}"
        if not each.md5.endswith(".dir"):
            source.get_file(root, str(folder / "file"))
            found = {folder / "file": file_md5(str(folder / "file"))}
            return self._kept(each, found, found[folder / "file"])
        found, listing = {}, []
        for number, path in enumerate(sorted(source.find(root))):
            copy = folder / str(number)
            source.get_file(path, str(copy))
            found[copy] = file_md5(str(copy))
            listing.append({"md5": found[copy], "relpath": path.removeprefix(root).lstrip("/")})
        (folder / "list").write_text(json.dumps(sorted(listing, key=lambda entry: entry["relpath"])))
        digest = file_md5(str(folder / "list")) + ".dir"
        return self._kept(each, found | {folder / "list": digest}, digest)

    def _kept(self, each: Import, found: dict[Path, str], digest: str) -> str | None:
        if digest != each.md5:
            return f"{each.owner}: its repository has other bytes at the revision that was imported"
        for path, md5 in found.items():
            self._repo.cache.local.add(str(path), localfs, md5)
        return None


def _located(url: str, near: Sequence[Path]) -> str:
    """A relative path made absolute; anything else as it is."""
    if "://" in url or Path(url).is_absolute():
        return url
    return next((str((folder / url).resolve()) for folder in near if (folder / url).exists()), url)


def _failures() -> tuple[type[BaseException], ...]:
    """What a remote or repository out of reach raises: every client that DVC may have loaded has errors of its own."""
    loaded = (getattr(sys.modules[module], name) for module, name in _CLIENTS.items() if module in sys.modules)
    return (DvcException, StoreError, ImportError, OSError, ValueError, *loaded)


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
