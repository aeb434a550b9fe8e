import os
import stat
import subprocess
import sys

import pytest

from mlflow_unlearn.adapters.commitment_store import CommitmentStore, lost
from mlflow_unlearn.commitments import committed, key_id
from mlflow_unlearn.errors import ConfigError, StoreError
from mlflow_unlearn.verifier.merkle import Tree, audit

SIZES = [0, 1, 15, 16, 17, 31, 33, 257]


@pytest.fixture
def kept(tmp_path) -> CommitmentStore:
    return CommitmentStore(folder=tmp_path / "commitments", dataset="people/eu")


def leaves(size: int) -> bytes:
    return b"".join(number.to_bytes(32) for number in range(1, size + 1))


def files(kept: CommitmentStore) -> list[str]:
    return sorted(path.relative_to(kept.folder).as_posix() for path in kept.folder.rglob("*") if path.is_file())


def test_the_key_is_made_once_and_private(kept):
    assert kept.key() == kept.key()
    assert stat.S_IMODE(kept.key_file.stat().st_mode) == 0o600
    assert kept.key() != CommitmentStore(folder=kept.folder, dataset="people").key()


def test_many_who_make_the_key_at_once_get_the_same(kept):
    code = (
        "import sys; from pathlib import Path; from mlflow_unlearn.adapters.commitment_store import CommitmentStore;"
        "print(CommitmentStore(folder=Path(sys.argv[1]), dataset='d').key().hex())"
    )
    makers = [subprocess.Popen([sys.executable, "-c", code, str(kept.folder)], stdout=subprocess.PIPE) for _ in range(4)]
    assert len({maker.communicate()[0] for maker in makers}) == 1
    assert files(kept) == ["d.key"]


@pytest.mark.parametrize(
    ("change", "reason"), [(lambda path: path.chmod(0o644), "others may read"), (lambda path: path.write_bytes(b"x"), "found 1")]
)
def test_a_key_that_is_open_or_cut_short_is_refused(kept, change, reason):
    kept.key()
    change(kept.key_file)
    with pytest.raises(ConfigError, match=reason):
        kept.key()


@pytest.mark.parametrize("size", SIZES)
def test_a_stored_tree_proves_what_the_tree_in_memory_proves(kept, size):
    made, found = kept.keep("m.dir", leaves(size), kept.key()), kept.find("m.dir", kept.key())
    assert found is not None
    assert found.head == made.head == Tree.build(leaves(size)).head
    assert [found.prove(number.to_bytes(32)) for number in range(size + 2)] == [made.prove(number.to_bytes(32)) for number in range(size + 2)]
    assert audit(made.head, bytes(found.leaves)) is None


@pytest.mark.parametrize("size", SIZES)
def test_a_tree_cut_short_or_padded_is_as_good_as_none(kept, size):
    kept.keep("m", leaves(size), kept.key())
    (path,) = kept.folder.rglob("*.tree")
    whole = path.read_bytes()
    for content in (b"", whole[:-1], whole[:20], whole[: len(whole) // 2], whole + bytes(32)):
        path.write_bytes(content)
        assert kept.find("m", kept.key()) is None


def test_a_tree_whose_root_was_changed_is_as_good_as_none(kept):
    kept.keep("m", leaves(40), kept.key())
    (path,) = kept.folder.rglob("*.tree")
    whole = path.read_bytes()
    for place in (0, 20, 30, len(whole) - 1):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        assert kept.find("m", kept.key()) is None


def test_a_tree_without_a_name_is_found_by_its_root(kept):
    made = kept.keep(None, leaves(5), kept.key())
    assert kept.find(made.head.root.hex(), kept.key()).head == made.head


def test_a_tree_costs_36_bytes_a_leaf(kept):
    kept.keep("m", leaves(16_000), kept.key())
    (path,) = kept.folder.rglob("*.tree")
    assert path.stat().st_size < 36.5 * 16_000
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_rotation_destroys_the_key_with_its_trees(kept):
    old = kept.key()
    kept.keep("m", leaves(5), old)
    with kept.key_file.open("rb") as still_open:
        assert kept.rotate() == (key_id(old), key_id(kept.key()))
        assert still_open.read() == bytes(32)
    assert kept.find("m", kept.key()) is None
    assert files(kept) == [kept.key_file.name]


def test_a_rotation_leaves_other_datasets_alone(kept):
    other = CommitmentStore(folder=kept.folder, dataset="people")
    key = other.key()
    other.keep("m", leaves(5), key)
    kept.rotate()
    assert other.key() == key
    assert other.find("m", key) is not None


@pytest.mark.parametrize("overwritten", [False, True])
def test_a_rotation_that_was_killed_is_finished_by_the_next_use(kept, overwritten):
    old = kept.key()
    kept.keep("m", leaves(5), old)
    retired = kept.key_file.replace(kept.key_file.with_suffix(".destroyed"))
    if overwritten:
        retired.write_bytes(bytes(32))
        CommitmentStore(folder=kept.folder, dataset=kept.dataset)._path("m", old).unlink()
    assert kept.key() != old
    assert files(kept) == [kept.key_file.name]


def test_leaves_that_were_made_while_the_key_was_rotated_are_not_kept(kept):
    old = kept.key()
    kept.rotate()
    with pytest.raises(StoreError, match="rotated while leaves were made"):
        kept.keep("m", leaves(5), old)
    assert files(kept) == [kept.key_file.name]


def test_a_key_is_disclosed_once_and_privately(kept, tmp_path):
    assert kept.disclose(tmp_path / "key") == key_id((tmp_path / "key").read_bytes()) == key_id(kept.key())
    assert stat.S_IMODE((tmp_path / "key").stat().st_mode) == 0o600
    with pytest.raises(ConfigError, match="there is a file already"):
        kept.disclose(tmp_path / "key")


def test_what_cannot_be_proven_says_whether_it_is_the_key_or_the_leaves():
    commitment = committed(Tree.build(b"").head, bytes(32))
    assert "its leaves are not on this machine" in str(lost("m/1", commitment, bytes(32)))
    assert "unless a rotation destroyed that key" in str(lost("m/1", commitment, os.urandom(32)))
