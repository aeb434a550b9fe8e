"""Who asks the server, and for what: as MLflow's own authentication found out, never as a client says of itself."""

from __future__ import annotations

import getpass
import os
from dataclasses import dataclass

from ..adapters.alias_header import REPLACES

_LONGEST_HEADER = 1000


@dataclass(frozen=True, kw_only=True)
class Caller:
    """One request."""

    user: str
    method: str = ""
    path: str = ""
    replaces: str | None = None
    """What the client knows of the alias; None where it does not say."""


def caller() -> Caller:
    """Who asks now; outside a request that is the user of this machine."""
    from flask import g, has_request_context, request

    if not has_request_context():
        return Caller(user=_local_user(), path="python")
    claimed = request.headers.get(REPLACES)
    return Caller(
        user=str(getattr(g, "mlflow_authenticated_user", None) or "anonymous")[:128],
        method=request.method,
        path=request.path[:200],
        replaces=None if claimed is None else "" if claimed == "none" else claimed[:20],
    )


def warn_caller(words: str) -> None:
    """Say in the answer's header `Warning` (RFC 7234) what was let through; outside a request nobody is answered."""
    from flask import Response, after_this_request, has_request_context

    if not has_request_context():
        return
    line = "".join(each if " " <= each <= "~" else "?" for each in " ".join(words.split()))  # a server sends no answer with anything else in it
    line = line.replace("\\", "/").replace('"', "'")[:_LONGEST_HEADER]

    @after_this_request
    def warned(response: Response) -> Response:
        response.headers["Warning"] = f'199 mlflow-unlearn "{line}"'
        return response


def lost_race(asked: Caller, before: str, now: str, version: str) -> str | None:
    """Why a promotion is too late: somebody else moved the alias since it was asked for, or it points elsewhere than the client thought."""
    expected = before if asked.replaces is None else asked.replaces
    if now in (expected, version):
        return None
    return f"it points at version {now or 'none'} now, and was to replace {expected or 'none'}"


def _local_user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError, ImportError):  # a container whose user has no name
        return f"uid-{os.getuid()}"
