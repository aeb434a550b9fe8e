"""Trees and proofs against the vectors of the Certificate Transparency reference and against RFC 6962's own recursive definition."""

import hashlib
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as some

from mlflow_unlearn.verifier import merkle
from mlflow_unlearn.verifier.merkle import EMPTY, WIDTH, Absence, Head, Inclusion, ProofError, Tree, audit, bound, verify_absence, verify_inclusion

REFERENCE = ["", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f"]
ROOTS = {  # size -> root, of the reference's first leaves (certificate-transparency, merkletree/merkle_tree_test.cc)
    1: "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    2: "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    3: "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    4: "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    5: "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    6: "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    7: "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    8: "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
}
sets = some.sets(some.binary(min_size=WIDTH, max_size=WIDTH), max_size=70)
numbers = some.integers(min_value=0)


def digests(size: int) -> list[bytes]:
    return sorted(hashlib.sha256(bytes([number % 256, number // 256])).digest() for number in range(size))


def by_definition(leaves: list[bytes]) -> bytes:
    """MTH of RFC 6962 section 2.1, word for word."""
    if not leaves:
        return hashlib.sha256(b"").digest()
    if len(leaves) == 1:
        return hashlib.sha256(b"\x00" + leaves[0]).digest()
    split = 1 << (len(leaves) - 1).bit_length() - 1
    return hashlib.sha256(b"\x01" + by_definition(leaves[:split]) + by_definition(leaves[split:])).digest()


def path_by_definition(index: int, leaves: list[bytes]) -> list[bytes]:
    """PATH of RFC 6962 section 2.1.1, word for word."""
    if len(leaves) <= 1:
        return []
    split = 1 << (len(leaves) - 1).bit_length() - 1
    if index < split:
        return [*path_by_definition(index, leaves[:split]), by_definition(leaves[split:])]
    return [*path_by_definition(index - split, leaves[split:]), by_definition(leaves[:split])]


def tree(leaves: list[bytes]) -> Tree:
    return Tree.build(b"".join(leaves))


def flipped(value: bytes, bit: int) -> bytes:
    return (int.from_bytes(value) ^ 1 << bit % (8 * len(value))).to_bytes(len(value))


def verify(head: Head, proof: Inclusion | Absence) -> None:
    verify_inclusion(head, proof) if isinstance(proof, Inclusion) else verify_absence(head, proof)


@pytest.mark.parametrize("size", ROOTS)
def test_the_definition_gives_the_roots_of_the_reference(size):
    assert by_definition([bytes.fromhex(leaf) for leaf in REFERENCE[:size]]).hex() == ROOTS[size]


@pytest.mark.parametrize("size", ROOTS)
def test_nodes_are_hashed_as_in_the_reference(size):
    level = b"".join(hashlib.sha256(b"\x00" + bytes.fromhex(leaf)).digest() for leaf in REFERENCE[:size])
    for _ in merkle.widths(size)[1:]:
        level = merkle.parents(level)
    assert level.hex() == ROOTS[size]


@pytest.mark.parametrize("size", [*range(70), 255, 256, 257, 1000])
def test_a_tree_and_its_paths_are_those_of_the_definition(size):
    leaves, made = digests(size), tree(digests(size))
    assert made.head == Head(size=size, root=hashlib.sha256(b"\x02" + size.to_bytes(8, "big") + by_definition(leaves)).digest())
    for index in (*range(min(size, 40)), *range(max(0, size - 5), size)):
        assert list(made.inclusion(index).path) == path_by_definition(index, leaves)


@given(sets)
def test_every_member_is_proven_in_and_nothing_else(members):
    made = tree(sorted(members))
    for leaf in members:
        proof = made.prove(leaf)
        assert isinstance(proof, Inclusion)
        assert verify_inclusion(made.head, proof) is None


@given(sets, some.binary(min_size=WIDTH, max_size=WIDTH))
def test_every_other_leaf_is_proven_out(members, leaf):
    made = tree(sorted(members - {leaf}))
    proof = made.prove(leaf)
    assert isinstance(proof, Absence)
    assert verify_absence(made.head, proof) is None


@given(sets, numbers, numbers)
def test_no_absence_of_a_member_can_be_put_together_from_true_places(members, first, second):
    made = tree(sorted(members))
    places = [None, *(made.inclusion(index) for index in range(made.size))]
    left, right = places[first % len(places)], places[second % len(places)]
    for leaf in members:
        with pytest.raises(ProofError, match=r"adjacent|in order|between|no neighbours"):
            verify_absence(made.head, Absence(leaf=leaf, left=left, right=right))


@given(sets.filter(bool), numbers, numbers, some.sampled_from(["leaf", "path", "index", "size", "root"]))
def test_every_single_bit_of_an_inclusion_proof_counts(members, which, bit, part):
    made = tree(sorted(members))
    head, proof = made.head, made.inclusion(which % made.size)
    if part == "path":
        step = bit % len(proof.path) if proof.path else 0
        proof = replace(proof, path=tuple(flipped(each, bit) if place == step else each for place, each in enumerate(proof.path)) or (bytes(WIDTH),))
    head, proof = {
        "leaf": (head, replace(proof, leaf=flipped(proof.leaf, bit))),
        "path": (head, proof),
        "index": (head, replace(proof, index=proof.index ^ 1 << bit % 64)),
        "size": (replace(head, size=head.size ^ 1 << bit % 64), proof),
        "root": (replace(head, root=flipped(head.root, bit)), proof),
    }[part]
    with pytest.raises(ProofError, match=r"outside|does not lead|too long|too short"):
        verify_inclusion(head, proof)


@given(sets, some.binary(min_size=WIDTH, max_size=WIDTH), numbers, some.sampled_from(["left", "right", "size", "root"]))
def test_every_single_bit_of_an_absence_proof_counts(members, leaf, bit, part):
    made = tree(sorted(members - {leaf}))
    head, proof = made.head, made.prove(leaf)
    if part in ("left", "right"):
        neighbour = getattr(proof, part)
        changed = replace(neighbour, leaf=flipped(neighbour.leaf, bit)) if neighbour else Inclusion(leaf=flipped(leaf, bit), index=0, path=())
        proof = replace(proof, **{part: changed})
    else:
        head = replace(head, size=head.size ^ 1 << bit % 64) if part == "size" else replace(head, root=flipped(head.root, bit))
    with pytest.raises(ProofError, match=r"."):
        verify_absence(head, proof)


@given(sets.filter(bool), some.binary(min_size=WIDTH, max_size=WIDTH), numbers)
def test_an_absence_with_another_leaf_holds_only_where_that_one_is_absent(members, leaf, bit):
    made = tree(sorted(members - {leaf}))
    other = replace(made.prove(leaf), leaf=flipped(leaf, bit))
    try:
        verify_absence(made.head, other)
    except ProofError:
        return
    assert other.leaf not in members


@pytest.fixture
def made() -> Tree:
    return tree(digests(11))


def between(made: Tree, place: int) -> bytes:
    """A leaf right after the one at this place."""
    return (int.from_bytes(made.inclusion(place).leaf) + 1).to_bytes(WIDTH)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda proof: replace(proof, left=proof.right, right=proof.left), "neighbours 5 and 4 are not in order inside a tree of 11 leaves"),
        (lambda proof: replace(proof, right=None), "neighbours 4 and 11 are not adjacent"),
        (lambda proof: replace(proof, left=None), "neighbours -1 and 5 are not adjacent"),
        (lambda proof: replace(proof, left=None, right=None), "no neighbours are shown, and the tree of 11 leaves is not the empty one"),
        (lambda proof: replace(proof, leaf=proof.left.leaf), "does not lie between its neighbours"),
        (lambda proof: replace(proof, leaf=bytes(WIDTH)), "does not lie between its neighbours"),
        (lambda proof: replace(proof, leaf=proof.leaf[:-1]), "the leaf is not 32 bytes long"),
        (lambda proof: replace(proof, left=replace(proof.left, path=proof.left.path[:-1])), "the path of index 4 is too short for 11 leaves"),
        (lambda proof: replace(proof, left=replace(proof.left, path=(*proof.left.path, EMPTY))), "the path of index 4 is too long for 11 leaves"),
        (lambda proof: replace(proof, right=replace(proof.right, path=proof.left.path)), "the path of index 5 does not lead to the root"),
        (lambda proof: replace(proof, right=replace(proof.right, path=())), "the path of index 5 is too short"),
        (lambda proof: replace(proof, left=replace(proof.left, path=(b"", *proof.left.path[1:]))), "a hash of the path is not 32 bytes long"),
    ],
)
def test_a_bent_absence_proof_is_refused_with_its_reason(made, change, reason):
    with pytest.raises(ProofError, match=reason):
        verify_absence(made.head, change(made.prove(between(made, 4))))


@pytest.mark.parametrize("size", range(1, 40))
def test_a_proof_holds_for_no_other_size_even_where_the_path_would_fit(size):
    made, other = tree(digests(size)), [number for number in range(64) if number != size]
    for proof in (made.inclusion(0), made.inclusion(size - 1), made.prove(between(made, size - 1))):
        for number in other:
            with pytest.raises(ProofError, match=r"."):
                verify(replace(made.head, size=number), proof)


def test_a_proof_from_another_set_of_the_same_size_is_refused(made):
    other = tree([hashlib.sha256(leaf).digest() for leaf in digests(11)])
    with pytest.raises(ProofError, match="does not lead to the root of 11 leaves"):
        verify_inclusion(made.head, other.inclusion(3))


@pytest.mark.parametrize("index", [-1, 11, 1 << 70])
def test_a_place_outside_the_tree_is_refused(made, index):
    with pytest.raises(ProofError, match="is outside a tree of 11 leaves"):
        verify_inclusion(made.head, replace(made.inclusion(3), index=index))


def test_nothing_is_in_the_empty_set_and_everything_is_shown_to_be_out_of_it():
    empty = tree([])
    assert empty.head == Head(size=0, root=bound(0, hashlib.sha256(b"").digest()))
    assert verify_absence(empty.head, empty.prove(bytes(WIDTH))) is None
    with pytest.raises(ProofError, match="is not the empty one"):
        verify_absence(replace(empty.head, root=bytes(WIDTH)), empty.prove(bytes(WIDTH)))


def test_an_unsorted_tree_can_hide_a_leaf_which_its_audit_finds(made):
    hidden = made.inclusion(0).leaf
    moved = tree([*digests(11)[1:], hidden])
    assert verify_absence(moved.head, Absence(leaf=hidden, left=None, right=moved.inclusion(0))) is None  # what no absence proof can rule out
    with pytest.raises(ProofError, match="not sorted or not distinct"):
        audit(moved.head, bytes(moved.leaves))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda leaves: leaves[:-WIDTH], "expected 11 leaves of 32 bytes, found 320 bytes"),
        (lambda leaves: leaves + b"\xff", "found 353 bytes"),
        (lambda leaves: leaves[:WIDTH] + leaves[:-WIDTH], "not sorted or not distinct"),
        (lambda leaves: leaves[:-1] + bytes([leaves[-1] ^ 1]), "do not lead to the root"),
    ],
)
def test_an_audit_refuses_leaves_that_are_not_the_committed_ones(made, change, reason):
    with pytest.raises(ProofError, match=reason):
        audit(made.head, change(bytes(made.leaves)))


@given(sets)
def test_an_audit_agrees_with_what_was_committed(members):
    leaves = b"".join(sorted(members))
    assert audit(Tree.build(leaves).head, leaves) is None
