"""Where a repository comes from, for people elsewhere: the URL of its remote, never with credentials."""

from __future__ import annotations

import configparser
import re
from pathlib import Path

_CREDENTIALS = re.compile(r"(?<=://)[^/@\s]*@")


def repository_url(root: Path) -> str:
    """URL of `origin`, else of the first remote; empty where there is none. Reads git's config file: a process would cost more than all else."""
    config = configparser.ConfigParser(strict=False, interpolation=None, allow_no_value=True)
    try:
        config.read_string("\n".join(line.strip() for line in _config_file(root).read_text().splitlines()))
    except (OSError, UnicodeDecodeError, configparser.Error):
        return ""
    urls = {section: config[section]["url"] for section in config.sections() if section.startswith("remote ") and config.has_option(section, "url")}
    return _CREDENTIALS.sub("", urls.get('remote "origin"') or next(iter(urls.values()), ""))


def _config_file(root: Path) -> Path:
    """A worktree's and a submodule's `.git` is a file that names the folder; a worktree's config lies with the main one."""
    git = root / ".git"
    if git.is_file():
        git = root / git.read_text().removeprefix("gitdir:").strip()
    common = git / "commondir"
    return (git / common.read_text().strip() if common.is_file() else git) / "config"
