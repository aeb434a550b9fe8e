"""Every remote that DVC's configuration names, in the workspace or at any git revision, without importing DVC.

A remote that moved or was renamed still holds the data of its day, and a relative URL counts from the `.dvc` folder whatever the revision.
"""

from __future__ import annotations

import configparser
import posixpath
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from .git_history import GitHistory

_CARRIED = frozenset({"url", "endpointurl", "region", "account_name", "projectname", "port", "user", "use_ssl", "allow_anonymous_login"})
"""Options that an old revision may set. The others (credentials, files of credentials, commands) could send the user's secrets, or run something,
where a stranger's branch says so."""


@dataclass(frozen=True, kw_only=True)
class Remote:
    """One remote of one revision."""

    name: str
    options: Mapping[str, str]
    """As in the configuration, the URL with no reference to another remote."""
    folder: Path
    """The `.dvc` folder that relative paths count from."""

    @property
    def url(self) -> str:
        """Where it is."""
        return self.options["url"]

    @property
    def directory(self) -> Path | None:
        """Where it lies if it is a plain directory."""
        url = self.url.removeprefix("file://")
        return None if "://" in url else self.folder / Path(url).expanduser()


@dataclass(frozen=True, kw_only=True)
class Remotes:
    """What all configurations say together."""

    here: tuple[Remote, ...] = ()
    """Of the workspace, the default one first."""
    past: tuple[Remote, ...] = ()
    """Others that some revision names."""
    folders: tuple[Path, ...] = ()
    """Every `.dvc` folder that lies in the workspace."""
    unread: tuple[str, ...] = field(default=())
    """Configurations that cannot be read."""


def remotes(git: GitHistory, project: Path) -> Remotes:
    """Remotes of all revisions; those of a project's workspace come first.

    Args:
        git: the repository.
        project: the folder that holds `.dvc`.
    """
    here = list(_ordered(workspace_config(project / ".dvc"), project / ".dvc"))
    found: dict[tuple[object, ...], Remote] = {}
    unread: set[str] = set()
    commits, files = git.changes([".dvc/config"], tips := git.tips())
    seen = {(file, blob) for at in git.blobs(dict.fromkeys([*commits, *tips]), files).values() for file, blob in at.items()}
    contents = git.contents(blob for _, blob in seen)
    for file, blob in sorted(seen):
        config = _parsed(contents.get(blob, b"["))
        unread |= {file} if config is None else set()
        for remote in _ordered(config, git.root / posixpath.dirname(file)) if config is not None else ():
            safe = Remote(name=remote.name, options={k: v for k, v in remote.options.items() if k in _CARRIED}, folder=remote.folder)
            found.setdefault((safe.directory or safe.url, safe.options.get("endpointurl")), _with_secrets(safe, here))
    known = {(remote.directory or remote.url, remote.options.get("endpointurl")) for remote in here}
    folders = {(git.root / file).parent for file in files if (git.root / file).is_file()} - {project / ".dvc"}
    return Remotes(
        here=tuple(here),
        past=tuple(remote for key, remote in found.items() if key not in known),
        folders=(project / ".dvc", *sorted(folders)),
        unread=tuple(sorted(unread)),
    )


def cache_folder(folder: Path) -> Path:
    """Where the configuration in a `.dvc` folder puts the cache; a user-wide setting is DVC's own to know."""
    found = folder / "cache"
    for name in ("config", "config.local"):
        config = _read(folder / name)
        found = (folder / Path(_value(config, "cache", "dir")).expanduser()) if config.has_option("cache", "dir") else found
    return found


def workspace_config(folder: Path) -> configparser.ConfigParser:
    """The file `config` and, over it, `config.local`; nothing of one that cannot be read, about which DVC itself complains."""
    config = _read(folder / "config")
    config.read_dict(_read(folder / "config.local"))
    return config


def _ordered(config: configparser.ConfigParser, folder: Path) -> Iterator[Remote]:
    """The remotes of one configuration, the default one first."""
    named = {name: options for section in config.sections() if (name := _remote_name(section)) and "url" in (options := _options(config, section))}
    default = _value(config, "core", "remote") if config.has_option("core", "remote") else None
    for name in sorted(named, key=lambda name: (name != default, name)):
        url = named[name]["url"]
        if url.startswith("remote://"):
            base, _, rest = url.removeprefix("remote://").partition("/")
            url = posixpath.join(named.get(base, {}).get("url", url), rest)
        yield Remote(name=name, options=named[name] | {"url": url}, folder=folder)


def _with_secrets(remote: Remote, here: list[Remote]) -> Remote:
    """With the credentials that the workspace has for a remote of this name on this very server; for another server it has none."""
    mine = next((each for each in here if each.name == remote.name and _server(each) == _server(remote)), None)
    return remote if mine is None else Remote(name=remote.name, options={**mine.options, **remote.options}, folder=remote.folder)


def _server(remote: Remote) -> tuple[str, ...]:
    parts = urlsplit(remote.url)
    return parts.scheme, parts.netloc, remote.options.get("endpointurl", "")


def _remote_name(section: str) -> str | None:
    """`store` of the section `'remote "store"'`."""
    words = section.strip("'").split('"')
    return words[1].lower() if words[0] == "remote " and len(words) == 3 else None


def _options(config: configparser.ConfigParser, section: str) -> dict[str, str]:
    return {option: _value(config, section, option) for option in config.options(section)}


def _value(config: configparser.ConfigParser, section: str, option: str) -> str:
    text = config[section][option]
    return text[1:-1] if len(text) > 1 and text[0] == text[-1] and text[0] in "'\"" else text


def _read(file: Path) -> configparser.ConfigParser:
    try:
        content = file.read_bytes()
    except OSError:
        content = b""
    return _parsed(content) or _empty()


def _parsed(content: bytes) -> configparser.ConfigParser | None:
    config = _empty()
    try:
        config.read_string(content.decode())
    except (configparser.Error, UnicodeDecodeError):
        return None
    return config


def _empty() -> configparser.ConfigParser:
    return configparser.ConfigParser(strict=False, interpolation=None, inline_comment_prefixes=("#",), default_section="\0none")
