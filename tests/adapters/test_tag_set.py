import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from mlflow_unlearn.adapters.tag_set import TagSet

words = st.lists(st.integers(-(2**63), 2**63 - 1), max_size=50)


@given(words, words)
def test_it_knows_exactly_what_it_was_made_of(tmp_path_factory, known, asked):
    tags = TagSet.write(tmp_path_factory.mktemp("tags") / "t.words", np.array(known, dtype=np.int64))
    mixed = [*asked, *known[:5]]
    assert tags.contains(np.array(mixed, dtype=np.int64)).tolist() == [word in known for word in mixed]
    assert len(tags) == len(set(known))
