"""Names to components: `build("methods", {"name": "npo", "beta": 0.1})` imports methods/npo.py and nothing else.

A component file ends with `EXPORT = <frozen dataclass>`; its stem is its name and its fields are its schema. Other packages add theirs through
the entry-point groups `mlflow_unlearn.methods`, `mlflow_unlearn.metrics` and `mlflow_unlearn.attacks`.
"""

from __future__ import annotations

import difflib
import importlib
import pkgutil
from collections.abc import Mapping
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Literal

from .documents import decode
from .errors import ConfigError

Kind = Literal["methods", "metrics", "attacks"]


def names(kind: Kind) -> tuple[str, ...]:
    """Every component of a kind, ours and other packages', sorted; imports none of them."""
    return tuple(sorted({*_own(kind), *_foreign(kind)}))


def load(kind: Kind, name: str, where: str) -> type:
    """The component class.

    Raises:
        ConfigError: no such name (with the nearest one), or another package's component fails to import.
    """
    if name in _own(kind):
        module = importlib.import_module(f"{__package__}.{kind}.{name}")
        return _exported(module.EXPORT, f"{kind}/{name}.py")
    if name in (foreign := _foreign(kind)):
        return _load_foreign(foreign[name], kind)
    near = difflib.get_close_matches(name, names(kind), n=1)
    hint = f"; did you mean '{near[0]}'?" if near else ""
    raise ConfigError(f"{where}: no {kind[:-1]} called '{name}'{hint} (there are: {', '.join(names(kind))})")


def build(kind: Kind, section: Mapping[str, Any] | str, *, where: str) -> Any:
    """A component with its settings, from a mapping with the key `name` or from a bare name.

    Raises:
        ConfigError: unknown name, unknown keys, missing keys or wrong types: all complaints at once.
    """
    if isinstance(section, str):
        section = {"name": section}
    if not isinstance(section, Mapping) or not isinstance(section.get("name"), str):
        raise ConfigError(f"{where}: expected a name or a mapping with the key 'name', found {type(section).__name__}")
    settings = {key: value for key, value in section.items() if key != "name"}
    return decode(load(kind, section["name"], where), settings, where)


def name_of(component: Any, kind: Kind) -> str:
    """The catalog name of a built component.

    Raises:
        ConfigError: it is no component of ours, nor does an entry point of its package lead to it.
    """
    cls = type(component)
    if cls.__module__.startswith(f"{__package__}.{kind}."):
        return cls.__module__.rsplit(".", 1)[1]
    package = cls.__module__.split(".")[0]
    for name, entry in _foreign(kind).items():
        if entry.module.split(".")[0] == package and _load_foreign(entry, kind) is cls:
            return name
    raise ConfigError(f"{cls.__module__}.{cls.__qualname__}: no entry point of '{package}' in the group mlflow_unlearn.{kind} leads to it")


def _own(kind: Kind) -> tuple[str, ...]:
    package = importlib.import_module(f"{__package__}.{kind}")
    return tuple(info.name for info in pkgutil.iter_modules(package.__path__) if not info.name.startswith("_"))


def _foreign(kind: Kind) -> dict[str, EntryPoint]:
    return {entry.name: entry for entry in entry_points(group=f"mlflow_unlearn.{kind}")}


def _load_foreign(entry: EntryPoint, kind: Kind) -> type:
    try:
        return _exported(entry.load(), entry.value)
    except (ImportError, AttributeError, SyntaxError) as error:
        raise ConfigError(f"{kind[:-1]} '{entry.name}' of another package cannot be imported ({entry.value}): {error}") from error


def _exported(component: Any, source: str) -> type:
    if not isinstance(component, type) or not hasattr(component, "__dataclass_fields__"):
        raise ConfigError(f"{source}: EXPORT must be a frozen dataclass, found {type(component).__name__}")
    return component
