"""MLflow's registry with the gate in it: what protected aliases may point at, who follows them, and which files nobody reads any more."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, NoReturn, TypeVar

from mlflow.entities.model_registry import ModelVersion as Registered
from mlflow.entities.model_registry import ModelVersionTag, RegisteredModelTag
from mlflow.entities.model_registry.model_version_stages import STAGE_ARCHIVED, get_canonical_stage
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import PERMISSION_DENIED, RESOURCE_CONFLICT

from ..adapters.gate_log import Entry
from ..adapters.gate_tables import take_turn
from ..adapters.gate_views import Holding, holder, stage_holders, staging, version_row
from ..lineage import ModelVersion
from ..ruling import Use
from .callers import caller, lost_race
from .decisions import NO_FILES
from .one_transaction import OneTransaction, number
from .reserved_tags import ReservedTags
from .warden import NOTHING, Warden

T = TypeVar("T")
_OURS = "unlearn."
_TRIES = 5


class GatedStore(OneTransaction):
    """The registry store of `unlearn-sqlite:` and `unlearn-postgresql:`.

    Every refusal is an MlflowException with PERMISSION_DENIED (403), or RESOURCE_CONFLICT (409) where somebody else was faster, whose words say why
    and what to do; MLflow's clients and its alias dialog show them as they are.
    """

    def __init__(self, db_uri: str, warden_of: Callable[[GatedStore], Warden]) -> None:
        super().__init__(db_uri)
        self.warden = warden_of(self)
        self.tags = ReservedTags(self.warden)

    # Aliases and stages

    def set_registered_model_alias(self, name: str, alias: str, version: str | int) -> None:
        """Point an alias at a version, if it is not guarded or the evidence is there."""
        model = ModelVersion(name=name, version=number(version))

        def point() -> None:
            super(GatedStore, self).set_registered_model_alias(name, alias, version)

        self._move(model, alias, point, guarded=self.warden.protects(alias), now=lambda connection: holder(connection, name, alias))

    def delete_registered_model_alias(self, name: str, alias: str) -> None:
        """Take an alias away: nothing is deployed by that, and the log says who did it."""
        with self._transaction() as session:
            take_turn(session.connection())
            before = holder(session.connection(), name, alias)
            super().delete_registered_model_alias(name, alias)
            if before:
                entry = self.warden.clerk.entry("delete alias", ModelVersion(name=name, version=""), alias)
                self.warden.clerk.log.append(session.connection(), replace(entry, replaced=before, moves=True))

    def get_model_version_by_alias(self, name: str, alias: str) -> Registered:
        """The version that an alias points at, if it may be followed."""
        found = super().get_model_version_by_alias(name, alias)
        if alias.lower() != "latest":  # MLflow's own word for a number; it needs no evidence, and its files are guarded like all others
            self._follow(Holding(model=ModelVersion(name=name, version=str(found.version)), alias=alias), self.warden.protects(alias))
        return found

    def transition_model_version_stage(self, name: str, version: str | int, stage: str, archive_existing_versions: bool) -> Registered:
        """Put a version into a stage, if that is not guarded or the evidence is there."""
        model, stage = ModelVersion(name=name, version=number(version)), str(get_canonical_stage(stage))

        def move() -> Registered:
            with self._transaction() as session:
                before = stage_holders(session.connection(), name, stage).split(",")
                done = super(GatedStore, self).transition_model_version_stage(name, version, stage, archive_existing_versions)
                for each in before if archive_existing_versions else ():
                    if each and each != model.version:
                        entry = self.warden.clerk.entry("archive", ModelVersion(name=name, version=each), staging(STAGE_ARCHIVED))
                        self.warden.clerk.log.append(session.connection(), replace(entry, moves=True))
            return done

        guarded, now = self.warden.protects_stage(stage), partial(stage_holders, name=name, stage=stage)
        return self._move(model, stage, move, guarded=guarded, now=now, label=staging(stage))

    def get_latest_versions(self, name: str, stages: Sequence[str] | None = None) -> list[Registered]:
        """The latest version of each stage; one that is asked for by a guarded stage has to be one that may be followed."""
        found: list[Registered] = super().get_latest_versions(name, stages)
        for each in found if stages else ():
            guarded = self.warden.protects_stage(each.current_stage)
            self._follow(Holding(model=ModelVersion(name=name, version=str(each.version)), alias=each.current_stage, stage=True), guarded)
        return found

    # Files

    def get_model_version_download_uri(self, name: str, version: str | int) -> str:
        """Where a version's files are, unless nobody may read them any more."""
        found = str(super().get_model_version_download_uri(name, version))
        if (words := self.warden.refusal_at(found)) is not None:
            self._refuse(self.warden.clerk.entry(Use.READ.value, ModelVersion(name=name, version=number(version))), words)
        return found

    def create_model_version(self, name: str, source: str, run_id: str | None = None, tags: Any = None, *more: Any, **named: Any) -> Registered:
        """Register a version; not of files that nobody may read, and without the tags that only this server writes."""
        self._refuse_copying(source)
        kept = self.tags.at_creation(name, source, tags or [])
        with self._transaction() as session:
            made: Registered = super().create_model_version(name, source, run_id, kept, *more, **named)
            row = self._row(ModelVersion(name=name, version=str(made.version)))
            words = self.warden.refusal_at(row.location)
            if words is not None:
                session.rollback()
        if words is not None:  # only now: the log is written in a transaction of its own
            self._refuse(self.warden.clerk.entry("register", row.model), words)
        return made

    def copy_model_version(self, src_mv: Registered, dst_name: str) -> Registered:
        """Copy a version, unless nobody may read its files any more."""
        self._refuse_copying(f"models:/{src_mv.name}/{src_mv.version}")
        return super().copy_model_version(src_mv, dst_name)

    # What would take evidence away

    def rename_registered_model(self, name: str, new_name: str) -> Any:
        """Rename a model that holds no guarded alias: what is signed names the version."""

        def rename() -> Any:
            with self._transaction() as session:
                renamed = super(GatedStore, self).rename_registered_model(name, new_name)
                self.warden.clerk.found(session.connection(), new_name)
            return renamed

        return self._change("rename model", name, None, rename)

    def delete_registered_model(self, name: str) -> None:
        """Delete a model that holds no guarded alias, and from which nothing was made that does."""
        self._change("delete model", name, None, lambda: super(GatedStore, self).delete_registered_model(name))

    def delete_model_version(self, name: str, version: str | int) -> None:
        """Delete a version that holds no guarded alias, and from which nothing was made that does."""
        self._change("delete version", name, number(version), lambda: super(GatedStore, self).delete_model_version(name, version))

    # Tags

    def set_model_version_tag(self, name: str, version: str | int, tag: ModelVersionTag) -> None:
        """Set a tag; of the reserved ones those that point at something signed, which is verified first."""
        if not tag.key.startswith(_OURS):
            super().set_model_version_tag(name, version, tag)
            return
        model = ModelVersion(name=name, version=number(version))
        change = self.tags.change(self._row(model), tag.key, tag.value)
        if change.refusal:
            self._refuse(self.warden.clerk.entry("set tag", model), change.refusal)
        with self._transaction() as session:
            take_turn(session.connection())
            for key, value in change.tags.items():
                super().set_model_version_tag(name, version, ModelVersionTag(key, value))
            self.tags.keep(session.connection(), model, change)
            self.warden.clerk.log.append(session.connection(), replace(self.warden.clerk.entry("set tag", model), codes=tuple(sorted(change.tags))))
        if change.signed:
            self.warden.want_all(model)

    def delete_model_version_tag(self, name: str, version: str | int, key: str) -> None:
        """Delete a tag that is not reserved, or that a signed statement does not have."""
        if key.startswith(_OURS):
            model = ModelVersion(name=name, version=number(version))
            if refusal := self.tags.removal(self._row(model), key):
                self._refuse(self.warden.clerk.entry("delete tag", model), refusal)
        super().delete_model_version_tag(name, version, key)

    def set_registered_model_tag(self, name: str, tag: RegisteredModelTag) -> None:
        """Set a tag of a model; reserved ones have no meaning there."""
        if tag.key.startswith(_OURS):
            super().get_registered_model(name)  # MLflow's own words for what is not there
            words = f"tags that begin with {_OURS} are reserved: mlflow-unlearn writes them, on versions"
            self._refuse(self.warden.clerk.entry("set model tag", ModelVersion(name=name, version="")), words)
        super().set_registered_model_tag(name, tag)

    # How

    def _move(self, model: ModelVersion, alias: str, move: Callable[[], T], *, guarded: bool, now: Callable[[Any], str], label: str = "") -> T:
        """Let an alias or stage point at a version and write down who did it, in one transaction, in the order in which these get their turn.

        Args:
            model: the version.
            alias: the alias, or the stage.
            move: does it.
            guarded: whether it needs evidence.
            now: what it points at, asked in the transaction.
            label: under which name it is written down, where that is another.
        """
        asked = caller()
        with self.engine.connect() as connection:
            before = now(connection)
        for attempt in range(_TRIES):
            standing, ruling = self.warden.pointing(model, alias, afresh=attempt > 0) if guarded else (None, NOTHING)
            with self._transaction() as session:
                connection = session.connection()
                take_turn(connection)
                if not self.warden.still_asked(standing) or (guarded and standing is None and self._has_files(connection, model)):
                    continue  # a request came in since the answer was worked out, or the version did
                current = now(connection)
                late = lost_race(asked, before, current, model.version) if guarded else None
                allowed = ruling.allowed and late is None
                done = move() if allowed else None
                entry = self.warden.clerk.entry(Use.POINT.value, model, label or alias, standing=standing, ruling=ruling)
                lost: dict[str, Any] = {} if late is None else {"outcome": "refused", "codes": ("lost_race",), "reasons": (late,)}
                entry = replace(entry, replaced=current, moves=allowed, **lost)
                if allowed:
                    self.warden.clerk.log.append(connection, entry)
            if not allowed:
                self.warden.clerk.write_refused(entry)
            if late is not None:
                words = f"refused by mlflow-unlearn: {model} for '{alias}': {late}.\nNext: look at what it points at now, then promote again."
                raise MlflowException(words, error_code=RESOURCE_CONFLICT)
            if not allowed:
                if standing is not None:
                    self.warden.heed(standing)
                raise MlflowException(ruling.words, error_code=PERMISSION_DENIED)
            return done  # type: ignore[return-value]  # set, where it is allowed
        words = f"refused by mlflow-unlearn: {model} for '{alias}': requests came in {_TRIES} times while it was looked at.\nNext: try again."
        raise MlflowException(words, error_code=RESOURCE_CONFLICT)

    def _follow(self, holding: Holding, guarded: bool) -> None:
        if not guarded:
            return
        standing, ruling = self.warden.following(holding)
        if ruling.outcome != "granted":
            entry = self.warden.clerk.entry(Use.FOLLOW.value, holding.model, holding.label, standing=standing, ruling=ruling)
            self.warden.clerk.write_once(entry)
        if not ruling.allowed:
            raise MlflowException(ruling.words, error_code=PERMISSION_DENIED)

    def _refuse_copying(self, source: str) -> None:
        """MLflow makes an internal error of what is refused while it resolves a source, and its clients try that again for minutes."""
        body = source.removeprefix("models:/")
        name, slash, version = body.rpartition("/")
        if body != source and slash and version.isdigit():
            self.get_model_version_download_uri(name, version)

    def _change(self, action: str, name: str, version: str | None, change: Callable[[], T]) -> T:
        entry = self.warden.clerk.entry(action, ModelVersion(name=name, version=version or ""))
        with self._transaction() as session:
            take_turn(connection := session.connection())  # before it is looked who holds what: until this is done nobody moves an alias
            held = self.warden.holds(connection, name, version)
            enforced = [f"{each}@{alias}" for each, alias in held if self.warden.enforced(connection, each, alias)]
            if not enforced:
                done = change()
                self.warden.clerk.log.append(connection, entry)
        if enforced:
            words = f"{', '.join(enforced[:5])} would lose its evidence.\nNext: take the alias or stage away, or let it point at another version."
            self._refuse(entry, words)
        return done

    def _refuse(self, entry: Entry, words: str) -> NoReturn:
        said = words if words.startswith("refused") else f"refused by mlflow-unlearn: {entry.action}: {words}"
        self.warden.clerk.write_once(replace(entry, outcome="refused", codes=entry.codes or ("refused",), reasons=(words,)))
        raise MlflowException(said, error_code=PERMISSION_DENIED)

    def _has_files(self, connection: Any, model: ModelVersion) -> bool:
        """Whether there is something to guard now, where nothing was before."""
        row = version_row(connection, model)
        return row is not None and row.location not in NO_FILES

    def _row(self, model: ModelVersion) -> Any:
        with self.ManagedSessionMaker() as session:
            row = version_row(session.connection(), model)
        if row is None:
            super().get_model_version(model.name, model.version)  # MLflow's own words for what is not there
        return row
