import hashlib
import json
import os
import stat

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file

from mlflow_unlearn import digests
from mlflow_unlearn.errors import ConfigError, TamperedError

KEY = bytes(range(32))
json_values = st.recursive(st.none() | st.booleans() | st.integers() | st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner))


@given(st.dictionaries(st.text(), json_values))
def test_canonical_bytes_ignore_key_order(document):
    assert digests.canonical_json(document) == digests.canonical_json(dict(reversed(document.items())))


@given(st.text(), st.text())
def test_tags_tell_where_one_part_ends(left, right):
    joined = digests.keyed_tag(KEY, "content", left + right, "")
    assert (digests.keyed_tag(KEY, "content", left, right) == joined) == (right == "")


def test_domains_and_keys_separate_tags():
    tags = {digests.keyed_tag(key, domain, "x") for key in (KEY, KEY[::-1]) for domain in ("record", "subject", "content", "shard")}
    assert len(tags) == 8


def test_a_new_key_is_private_and_made_once(tmp_path):
    path = tmp_path / "state/tag.key"
    assert digests.create_tag_key(path)
    first = digests.read_tag_key(path)
    assert not digests.create_tag_key(path)
    assert digests.read_tag_key(path) == first
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_key_that_others_may_read_is_refused(tmp_path):
    path = tmp_path / "tag.key"
    path.write_bytes(KEY)
    path.chmod(0o644)
    with pytest.raises(ConfigError, match="chmod 600"):
        digests.read_tag_key(path)


@pytest.mark.parametrize(("content", "complaint"), [(None, "no tag key here"), (b"short", "expected 32 bytes, found 5")])
def test_a_missing_or_short_key_says_what_to_do(tmp_path, content, complaint):
    path = tmp_path / "tag.key"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError, match=complaint):
        digests.read_tag_key(path)


def test_a_key_id_tells_keys_apart_and_is_no_tag():
    ids = {digests.key_id(key) for key in (KEY, KEY[::-1], bytes(32))}
    assert len(ids) == 3
    assert all(len(found) == 16 and not digests.keyed_tag(KEY, "subject", "mlflow-unlearn key id").startswith(found) for found in ids)


def test_a_key_id_is_the_hmac_of_a_constant_as_rfc_2104_writes_it():
    block = KEY.hex().encode()  # one block of 64 bytes
    inner = hashlib.sha256(bytes(byte ^ 0x36 for byte in block) + b"mlflow-unlearn key id").digest()
    assert digests.key_id(KEY) == hashlib.sha256(bytes(byte ^ 0x5C for byte in block) + inner).hexdigest()[:16]


def test_retired_keys_are_found_beside_the_key_and_are_what_their_name_says(tmp_path):
    path = tmp_path / "tag.key"
    assert digests.read_retired_keys(path) == {}
    kept = digests.retired_key_file(path, digests.key_id(KEY))
    assert digests.create_tag_key(kept, KEY)
    assert digests.read_retired_keys(path) == {digests.key_id(KEY): KEY}
    kept.write_bytes(KEY[::-1])
    with pytest.raises(ConfigError, match=f"holds the key {digests.key_id(KEY[::-1])}; restore the retired key or remove the file"):
        digests.read_retired_keys(path)


def test_tensor_digest_ignores_file_names_sharding_and_order(tmp_path):
    a, b = torch.arange(6.0).reshape(2, 3), torch.ones(4, dtype=torch.bfloat16)
    save_file({"a": a, "b": b}, tmp_path / "one.safetensors", metadata={"format": "pt"})
    save_file({"b": b}, tmp_path / "x.safetensors")
    save_file({"a": a}, tmp_path / "y.safetensors")
    whole = digests.tensor_digest([tmp_path / "one.safetensors"])
    assert digests.tensor_digest([tmp_path / "y.safetensors", tmp_path / "x.safetensors"]) == whole


@pytest.mark.parametrize("change", [lambda t: t + 1e-6, lambda t: t.reshape(3, 2), lambda t: t.double()])
def test_tensor_digest_sees_values_shapes_and_types(tmp_path, change):
    tensor = torch.arange(6.0).reshape(2, 3)
    save_file({"a": tensor}, tmp_path / "old.safetensors")
    save_file({"a": change(tensor)}, tmp_path / "new.safetensors")
    assert digests.tensor_digest([tmp_path / "old.safetensors"]) != digests.tensor_digest([tmp_path / "new.safetensors"])


def test_a_cut_model_file_is_tampered(tmp_path):
    path = tmp_path / "model.safetensors"
    save_file({"a": torch.ones(100)}, path)
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(TamperedError, match="cut short"):
        digests.tensor_digest([path])


@pytest.mark.parametrize("offsets", [[0, 10**30], [0, 1 << 52], [-8, 400], [400, 0], [0], [0.0, "400"], None])
def test_offsets_that_cannot_be_are_tampered(tmp_path, offsets):
    header = json.dumps({"a": {"dtype": "F32", "shape": [100], "data_offsets": offsets}}).encode()
    (tmp_path / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + bytes(400))
    with pytest.raises(TamperedError, match="cut short or replaced"):
        digests.tensor_digest([tmp_path / "model.safetensors"])


@pytest.mark.parametrize("header", [b'{"\\ud800": {}}', b'{"a": 1e999}', b"[" * 9999, b'{"a": {}, "a": {}}', b"\xff"])
def test_a_header_that_can_be_read_in_two_ways_or_none_is_tampered(tmp_path, header):
    (tmp_path / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header)
    with pytest.raises(TamperedError, match="cut short or replaced"):
        digests.tensor_digest([tmp_path / "model.safetensors"])


def test_a_failed_write_leaves_the_old_file_and_no_litter(tmp_path, monkeypatch):
    path = tmp_path / "file"
    digests.write_atomically(path, b"old")
    monkeypatch.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(OSError, match="No space left"):
        digests.write_atomically(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_document_of_another_schema_is_refused(tmp_path):
    digests.write_document(tmp_path / "a.json", "mlflow-unlearn.trace/1", {"requests": []})
    assert digests.read_document(tmp_path / "a.json", "mlflow-unlearn.trace/1") == {"requests": []}
    with pytest.raises(ConfigError, match=r"expected schema mlflow-unlearn\.trace/2, found mlflow-unlearn\.trace/1"):
        digests.read_document(tmp_path / "a.json", "mlflow-unlearn.trace/2")


@pytest.mark.parametrize(("content", "complaint"), [(None, "run `dvc repro`"), ("{", "not JSON")])
def test_an_unreadable_document_says_what_to_do(tmp_path, content, complaint):
    if content is not None:
        (tmp_path / "a.json").write_text(content)
    with pytest.raises(ConfigError, match=complaint):
        digests.read_document(tmp_path / "a.json", "s")
