"""Commitments to what a version's parent was trained on and to what of it was retained."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from ..commitments import Commitments, CommittedRevision, committed
from ..digests import sha256_file
from ..errors import TamperedError
from ..lineage import DatasetRevision
from ..records import Split
from .workbench import Workbench

if TYPE_CHECKING:
    from polars import DataFrame

    from ..adapters.commitment_store import CommitmentStore
    from ..verifier.merkle import Tree


def store(bench: Workbench) -> CommitmentStore:
    """The commitment key and trees of the configured dataset."""
    from ..adapters.commitment_store import CommitmentStore

    return CommitmentStore(folder=bench.settings.state / "commitments", dataset=bench.params.data.name)


def revision_tree(bench: Workbench, state: DatasetRevision) -> Tree:
    """The tree of a dataset revision: the stored one, else made of the data as DVC kept them."""
    from ..adapters.commitment_leaves import packed, tree_name

    kept, name = store(bench), tree_name(state.md5, bench.schema)
    key = kept.key()
    return kept.find(name, key) or kept.keep(name, packed(_tables(bench, state, key)), key)


def commitments(bench: Workbench) -> Commitments:
    """Commit to every dataset revision of the split's parent and to the retained rows, reading each file once; the trees are stored.

    Raises:
        TamperedError: the retain set is not the one that the split stage wrote, or is not in the data.
    """
    from ..adapters.commitment_leaves import Retained, packed, tree_name

    split, retain = bench.value(Split, "split"), bench.sets / "retain.parquet"
    if sha256_file(retain) != split.files["retain"]:
        raise TamperedError(f"{retain}: changed since the split; run `dvc repro -f split`")
    kept, revisions = store(bench), []
    key = kept.key()
    retained = Retained(retain, key)
    for state in split.parent.datasets:
        tables = list(_tables(bench, state, key))
        for table in tables:
            retained.add(table)
        tree = kept.keep(tree_name(state.md5, bench.schema), packed(tables), key)
        revisions.append(CommittedRevision(name=state.name, md5=state.md5, commitment=committed(tree.head, key)))
    rest = kept.keep(None, retained.packed(), key)
    return Commitments(dataset=kept.dataset, revisions=tuple(revisions), retain=committed(rest.head, key))


def _tables(bench: Workbench, state: DatasetRevision, key: bytes) -> Iterator[DataFrame]:
    from ..adapters.commitment_leaves import leaf_table
    from ..adapters.formats import Source, holds_no_records

    files = [(relpath, md5) for relpath, md5 in bench.project.files(state.md5) if not holds_no_records(relpath)]
    bench.project.prefetch(md5 for _, md5 in files)
    for relpath, md5 in files:
        name = f"{state.path}/{relpath}" if relpath else state.path
        yield leaf_table(Source(name=name, path=bench.project.local_path(md5)), bench.schema, key)
