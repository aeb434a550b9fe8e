"""Bytes to values: JSON that can be read one way only, and its canonical bytes."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

LIMIT, DEPTH = 32 << 20, 64
"""The longest document in bytes, and the deepest nesting."""


class RefusedError(ValueError):
    """No: something is there, and does not hold."""


class UndecidedError(ValueError):
    """Could not decide: something is missing, unreadable or unknown."""


def read_file(path: Path) -> bytes:
    """A file; of one that is too long, as much as shows it."""
    with path.open("rb") as stream:
        return stream.read(LIMIT + 1)


def read_json(raw: bytes, what: str) -> Any:
    """Strict JSON: no duplicate keys, no NaN, no number beyond 2^53 or the floats, no surrogates, nothing deeper than DEPTH or longer than LIMIT."""
    if len(raw) > LIMIT:
        raise UndecidedError(f"{what}: {len(raw)} bytes; at most {LIMIT} are read")

    def no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        if len(found := dict(pairs)) < len(pairs):
            raise ValueError("a key stands there twice")
        return found

    try:
        text = _without_surrogates(raw.decode())
        found = json.loads(text, object_pairs_hook=no_duplicates, parse_float=_float, parse_int=_whole, parse_constant=_float)
    except (ValueError, RecursionError) as error:
        raise UndecidedError(f"{what}: not JSON that can be read one way only ({str(error)[:80] or type(error).__name__})") from None
    level, depth = [found], 0
    while level := [child for value in level if isinstance(value, (dict, list)) for child in (value.values() if isinstance(value, dict) else value)]:
        if (depth := depth + 1) > DEPTH:
            raise UndecidedError(f"{what}: nested deeper than {DEPTH}")
    return found


def _without_surrogates(text: str) -> str:
    if re.search(r"\\u[dD][89a-fA-F]", text):
        raise ValueError("half a character is escaped")
    return text


def _float(text: str) -> float:
    if not math.isfinite(number := float(text)):
        raise ValueError(f"{text[:20]} is no finite number")
    return number


def _whole(text: str) -> int:
    if len(text) > 17 or abs(number := int(text)) > 1 << 53:
        raise ValueError("a whole number beyond 2^53")
    return number


def canonical(value: Any) -> bytes:
    """RFC 8785 for values whose keys are ASCII: sorted, without spaces, numbers as ECMAScript writes them."""
    if isinstance(value, Mapping):
        return b"{" + b",".join(canonical(key) + b":" + canonical(value[key]) for key in sorted(value)) + b"}"
    if isinstance(value, (list, tuple)):
        return b"[" + b",".join(map(canonical, value)) + b"]"
    if isinstance(value, float):
        return _ecmascript(value)
    return json.dumps(value, ensure_ascii=False).encode()


def _ecmascript(number: float) -> bytes:
    if number.is_integer() and abs(number) < 1e21:
        return str(int(number)).encode()
    mantissa, _, exponent = repr(number).partition("e")
    if exponent and -7 < int(exponent) < 0:
        return format(number, f".{len(mantissa.partition('.')[2]) - int(exponent)}f").encode()
    return (f"{mantissa}e{int(exponent):+d}" if exponent else mantissa).encode()


def whole(value: Any) -> int:
    """A whole number of 0 or more; `range` would look for any other value one by one.

    Raises:
        ValueError: it is none.
    """
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise ValueError("not a whole number")
    return value


def moment(text: Any, what: str) -> datetime:
    """`2026-11-24T18:00:00Z` and nothing else."""
    if isinstance(text, str) and re.fullmatch(r"[0-9]{4}(-[0-9]{2}){2}T[0-9]{2}(:[0-9]{2}){2}Z", text):
        with suppress(ValueError):  # 31 February
            return datetime.strptime(text, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)
    raise UndecidedError(f"{what}: expected a moment such as 2026-11-24T18:00:00Z")
