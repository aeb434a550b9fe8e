"""The ledger: the record of erasure requests, of pinned parents, of attempts, of spent canary pools, of promotions, of changes of the
trust file, and of the projects that share it.

SQLite by default, Postgres in production. It holds keyed tags, codes and moments, and refuses free text. It is append-only: everything is an
event of a hash chain (ledger_store.py), and what stands is what the events add up to (ledger_state.py).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from ..documents import decode, encode
from ..lineage import Parent
from ..records import Project
from .ledger_book import Page
from .ledger_promotions import PromotionEntries
from .ledger_requests import RequestEntries, entry_of
from .ledger_tombstones import TombstoneEntries
from .ledger_trust import TrustEntries

Jobs = tuple[Mapping[str, Any], ...]


class Ledger(RequestEntries, TombstoneEntries, PromotionEntries, TrustEntries):
    """Everything the ledger knows; see `LedgerBook` for its arguments."""

    def pinned_parent(self, model: str, spec: str) -> Parent | None:
        """The parent pinned for the open batch of a model, under the `model.parent` of params.yaml it was resolved from."""
        document = self._read(lambda page: page.state.parents.get((model, spec)))
        return decode(Parent, document, "ledger: pinned parent") if document else None

    def pin_parent(self, model: str, spec: str, parent: Parent) -> None:
        """Pin a parent until the batch ends; the first pin stays."""

        def pin(page: Page) -> None:
            if (model, spec) not in page.state.parents:
                page.append("pinned", model, {"model": model, "spec": spec, "parent": encode(parent)}, datetime.now(UTC))

        self._write(pin)

    def release_parent(self, model: str) -> None:
        """Forget the pins of a model: its batch has ended."""

        def release(page: Page) -> None:
            if any(pinned == model for pinned, _ in page.state.parents):
                page.append("released", model, {"model": model}, datetime.now(UTC))

        self._write(release)

    def attempt(self, parent: str, pool: str, unlearned: str, at: datetime, policy: str = "") -> int:
        """Number of this attempt: audit canaries of `pool` are opened for `unlearned`, made of `parent`. The same weights count once.

        Another parent does not start anew: it is the pool that has been looked at, and with it its parts, or the whole it is a part of.

        Args:
            parent: the version that was made to forget.
            pool: which canaries are opened.
            unlearned: digest of the weights and of how they are looked at.
            at: when.
            policy: digest of the policy in force; that of the first attempt is the one that counts.
        """

        def count(page: Page) -> int:
            known = {weights: number for name, found in page.state.attempts.items() if related(name, pool) for weights, number in found.items()}
            number = known.get(unlearned, max(known.values(), default=0) + 1)
            if unlearned not in page.state.attempts.get(pool, {}):
                page.append("attempt", parent, {"pool": pool, "unlearned": unlearned, "number": number, "policy": policy}, at)
            return number

        return self._write(count)

    def first_policy(self, pool: str) -> str:
        """Digest of the policy in force when a pool, a part of it or the whole that it is a part of was first opened; empty where nobody said."""
        return self._read(lambda page: next((policy for name, policy in page.state.policies.items() if related(name, pool)), ""))

    def spend_pool(self, pool: str, spent_by: str, at: datetime) -> None:
        """Record that a closed batch used a canary pool; repeating it changes nothing."""

        def spend(page: Page) -> None:
            if pool not in page.state.pools:
                page.append("pool spent", pool, {"pool": pool, "spent_by": spent_by}, at)

        self._write(spend)

    def pool_spent_by(self, pool: str) -> str | None:
        """The batch that used a pool, a part of it or the whole that it is a part of, if one did."""
        return self._read(lambda page: next((by for name, by in page.state.pools.items() if related(name, pool)), None))

    def enrol(self, project: Project, at: datetime) -> None:
        """Enter a project that shares this ledger; repeating it changes nothing, not even under another URL of the same remote."""

        def enter(page: Page) -> None:
            known = page.state.projects.get(project.name)
            if known is None or replace(known, repository=project.repository) != project:
                page.append("enrolled", project.name, {"project": encode(project)}, at)

        self._write(enter)

    def projects(self) -> tuple[Project, ...]:
        """The projects that share this ledger, by name."""
        return self._read(lambda page: tuple(page.state.projects[name] for name in sorted(page.state.projects)))

    def record_plan(self, request_id: str, project_name: str, jobs: Sequence[Mapping[str, Any]], at: datetime) -> None:
        """Keep what a project has to do for a request; its latest plan counts, and the same plan again changes nothing.

        Raises:
            LedgerError: no such request.
        """
        document = encode(list(jobs))

        def record(page: Page) -> None:
            entry_of(page, request_id)
            known = page.state.plans.get(request_id, {}).get(project_name)
            if known is None or list(known[1]) != document:
                page.append("planned", request_id, {"project": project_name, "jobs": document}, at)

        self._write(record)

    def plans(self, request_id: str) -> Mapping[str, tuple[datetime, Jobs]]:
        """Project -> when it traced the request, and the jobs it planned.

        Raises:
            LedgerError: no such request.
        """

        def read(page: Page) -> dict[str, tuple[datetime, Jobs]]:
            entry_of(page, request_id)
            return dict(page.state.plans.get(request_id, {}))

        return self._read(read)


def related(one: str, other: str) -> bool:
    """Whether two pools are the same, one is a part of the other, or they are parts cut in different ways; a part is named `whole/shape/piece`.

    Pieces of one cut do not overlap. Cut anew, nobody here can say which canaries a new piece shares with an old one.
    """
    (whole, shape, piece), (its_whole, its_shape, its_piece) = (([*pool.split("/", 2), "", ""])[:3] for pool in (one, other))
    if whole != its_whole:
        return False
    return shape != its_shape or not piece or not its_piece or piece == its_piece
