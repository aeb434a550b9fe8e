import hashlib
import hmac

import pytest
from hypothesis import given
from hypothesis import strategies as some

from mlflow_unlearn.commitments import Commitment, Commitments, CommittedRevision, key_id, leaf, parse_head, parse_tag, read_key
from mlflow_unlearn.documents import decode, encode
from mlflow_unlearn.errors import ConfigError

KEY = bytes(range(32))
MADE = Commitment(root="a" * 64, size=7, key_id="b" * 16)


def test_a_leaf_is_the_whole_hmac_of_netstrings_under_the_key_in_hex():
    message = b"7:subject" + b"4:an\xc3\xa1"
    assert leaf(KEY, "subject", "aná") == hmac.new(KEY.hex().encode(), message, hashlib.sha256).digest()


def test_domains_and_the_cut_between_parts_make_other_leaves():
    parts = [("record", "ab"), ("subject", "ab"), ("content", "a", "b"), ("content", "ab", ""), ("content", "", "ab")]
    assert len({leaf(KEY, *each) for each in parts}) == len(parts)


def test_a_key_id_is_the_documented_digest():
    assert key_id(KEY) == hashlib.sha256(b"mlflow-unlearn commitment" + KEY).hexdigest()[:16]


@pytest.mark.parametrize(("content", "reason"), [(None, "no commitment key here"), (b"", "expected a commitment key of 32 bytes, found 0")])
def test_a_file_that_is_no_key_is_refused(tmp_path, content, reason):
    if content is not None:
        (tmp_path / "key").write_bytes(content)
    with pytest.raises(ConfigError, match=reason):
        read_key(tmp_path / "key")


@given(some.binary(min_size=32, max_size=32), some.integers(0, (1 << 64) - 1), some.binary(min_size=8, max_size=8))
def test_a_tag_says_all_of_a_commitment(root, size, identity):
    made = Commitment(root=root.hex(), size=size, key_id=identity.hex())
    assert parse_tag(made.tag, "") == made == decode(Commitment, encode(made), "")
    assert parse_head(made.tag, "") == parse_head(f"{made.root}:{made.size}", "") == made.head


@pytest.mark.parametrize("text", ["", "a", ":", "::", f"{'a' * 64}:-1", f"{'a' * 63}:1", f"{'A' * 64}:1", f"{'a' * 64}:1:b", f"{'a' * 64}:{1 << 64}"])
def test_a_text_that_is_no_root_is_refused(text):
    with pytest.raises(ConfigError, match=r"--root: .*expected"):
        parse_head(text, "--root")


def commitments(*names: str) -> Commitments:
    revisions = [CommittedRevision(name=name, md5=f"{number}" * 32, commitment=MADE) for number, name in enumerate(names)]
    return Commitments(dataset="d", revisions=tuple(revisions), retain=MADE)


def test_a_version_has_a_tag_for_each_dataset_and_one_for_what_was_retained():
    assert commitments("d", "e").tags() == dict.fromkeys(("unlearn.commitment.d", "unlearn.commitment.e", "unlearn.commitment.retain"), MADE.tag)


def test_no_tag_hides_another():
    tags = commitments("d", "d", "retain").tags()
    assert sorted(name.removeprefix("unlearn.commitment.") for name in tags) == ["d/00000000", "d/11111111", "retain", "retain/22222222"]
