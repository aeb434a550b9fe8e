"""Frozen dataclasses to plain JSON-like mappings and back, strictly: unknown keys, missing keys and wrong types are all refused by name.

Law: `decode(T, encode(x), where) == x` for every value x of a dataclass T in records.py and config.py.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
import types
import typing
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from enum import Enum
from functools import cache
from typing import Any, TypeVar

from .errors import ConfigError

T = TypeVar("T")


def moment(value: datetime) -> str:
    """RFC 3339 in UTC to the second, e.g. `2026-11-24T18:00:00Z`; naive datetimes are refused."""
    if value.tzinfo is None:
        raise ConfigError(f"datetime {value.isoformat()} has no time zone: give UTC, e.g. 2026-11-24T18:00:00Z")
    return value.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def encode(value: Any) -> Any:
    """A dataclass, enum, datetime or container of them as JSON-ready values."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: encode(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, datetime):
        return moment(value)
    if isinstance(value, Mapping):
        return {str(encode(k)): encode(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [encode(v) for v in value]
    return value


def decode(cls: type[T], document: Any, where: str) -> T:
    """Build `cls` from a mapping.

    Args:
        cls: a dataclass.
        document: what was read from a file.
        where: the place named in complaints, e.g. `params.yaml: unlearn`.

    Raises:
        ConfigError: with every complaint, one a line.
    """
    complaints: list[str] = []
    value = _decode(cls, document, where, complaints)
    if complaints:
        raise ConfigError("\n".join(complaints))
    return typing.cast(T, value)


@cache
def _hints(cls: type) -> dict[str, Any]:
    return typing.get_type_hints(cls)


def _decode(hint: Any, raw: Any, where: str, complaints: list[str]) -> Any:
    origin = typing.get_origin(hint)
    if hint is Any or hint is object:
        return raw
    if origin in (typing.Union, types.UnionType):
        return _decode_union(hint, raw, where, complaints)
    if origin is typing.Literal:
        return _one_of(raw, typing.get_args(hint), where, complaints)
    if origin in (tuple, list, Sequence):
        return _decode_sequence(hint, raw, where, complaints)
    if origin is not None and issubclass(origin, Mapping):
        return _decode_mapping(hint, raw, where, complaints)
    if dataclasses.is_dataclass(hint):
        return _decode_dataclass(typing.cast(type, hint), raw, where, complaints)
    if isinstance(hint, type) and issubclass(hint, Enum):
        value = _one_of(raw, tuple(m.value for m in hint), where, complaints)
        return None if value is None else hint(value)
    return _decode_scalar(hint, raw, where, complaints)


def _decode_scalar(hint: Any, raw: Any, where: str, complaints: list[str]) -> Any:
    if hint is datetime and isinstance(raw, str):
        return _decode_moment(raw, where, complaints)
    if hint is float and isinstance(raw, int) and not isinstance(raw, bool):
        return float(raw)
    if hint is type(None) and raw is None:
        return None
    if isinstance(hint, type) and isinstance(raw, hint) and not (isinstance(raw, bool) and hint is not bool):
        if isinstance(raw, float) and not math.isfinite(raw):
            complaints.append(f"{where}: expected a finite number, found {raw}")
        return raw
    complaints.append(f"{where}: expected {_name(hint)}, found {_shown(raw)}")
    return None


def _decode_moment(raw: str, where: str, complaints: list[str]) -> datetime | None:
    try:
        value = datetime.fromisoformat(raw)
        if value.tzinfo is not None:
            return value.astimezone(UTC)
    except (ValueError, OverflowError):  # the latter in the first and last hours that there are
        pass
    complaints.append(f"{where}: expected a moment with its zone such as 2026-11-24T18:00:00Z, found {_shown(raw)}")
    return None


def _decode_union(hint: Any, raw: Any, where: str, complaints: list[str]) -> Any:
    options = typing.get_args(hint)
    if raw is None and type(None) in options:
        return None
    first: list[str] | None = None
    for option in (o for o in options if o is not type(None)):
        attempt: list[str] = []
        value = _decode(option, raw, where, attempt)
        if not attempt:
            return value
        first = first or attempt
    complaints.extend(first or [f"{where}: expected {_name(hint)}, found {_shown(raw)}"])
    return None


def _decode_sequence(hint: Any, raw: Any, where: str, complaints: list[str]) -> Any:
    if not isinstance(raw, (list, tuple)):
        complaints.append(f"{where}: expected a list, found {_shown(raw)}")
        return ()
    item = typing.get_args(hint)[0]
    return tuple(_decode(item, value, f"{where}[{i}]", complaints) for i, value in enumerate(raw))


def _decode_mapping(hint: Any, raw: Any, where: str, complaints: list[str]) -> Any:
    if not isinstance(raw, Mapping):
        complaints.append(f"{where}: expected a mapping, found {_shown(raw)}")
        return {}
    item = typing.get_args(hint)[1]
    return {str(key): _decode(item, value, f"{where}.{key}", complaints) for key, value in raw.items()}


def _decode_dataclass(cls: type, raw: Any, where: str, complaints: list[str]) -> Any:
    if not isinstance(raw, Mapping):
        complaints.append(f"{where}: expected a mapping, found {_shown(raw)}")
        return None
    before = len(complaints)
    fields = {f.name: f for f in dataclasses.fields(cls) if f.init}
    complaints.extend(unknown_key(str(key), tuple(fields), where) for key in raw if key not in fields)
    values: dict[str, Any] = {}
    for name, field in fields.items():
        if name in raw:
            values[name] = _decode(_hints(cls)[name], raw[name], f"{where}.{name}", complaints)
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            complaints.append(f"{where}: missing key '{name}'")
    if len(complaints) > before:
        return None
    try:
        return cls(**values)
    except ConfigError as error:
        complaints.append(f"{where}: {error}")
        return None


def unknown_key(key: str, known: Sequence[str], where: str) -> str:
    """The complaint about a key that nobody reads, with the nearest one that exists."""
    near = difflib.get_close_matches(key, known, n=1)
    hint = f"; did you mean '{near[0]}'?" if near else f"; known keys: {', '.join(sorted(known))}"
    return f"{where}: unknown key '{key}'{hint}"


def _one_of(raw: Any, allowed: tuple[Any, ...], where: str, complaints: list[str]) -> Any:
    if raw in allowed and not isinstance(raw, bool):
        return raw
    near = difflib.get_close_matches(str(raw), [str(a) for a in allowed], n=1)
    hint = f"; did you mean '{near[0]}'?" if near else ""
    complaints.append(f"{where}: expected one of {', '.join(map(str, allowed))}, found {_shown(raw)}{hint}")
    return None


def _name(hint: Any) -> str:
    names = {int: "a whole number", float: "a number", str: "text", bool: "true or false"}
    return names.get(hint, getattr(hint, "__name__", str(hint)))


def _shown(raw: Any) -> str:
    return f"{raw!r} ({type(raw).__name__})" if isinstance(raw, (str, int, float, bool, type(None))) else type(raw).__name__
