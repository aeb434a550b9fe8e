import polars as pl
from hypothesis import given
from hypothesis import strategies as st

from mlflow_unlearn.adapters.keyed import keyed_column, keyed_tags, words
from mlflow_unlearn.adapters.tag_words import tags_of_words, words_of_tags
from mlflow_unlearn.digests import keyed_tag

KEY = bytes(range(32))
texts = st.text(st.characters(exclude_categories=("Cs",)), max_size=20)


@given(st.lists(st.tuples(texts, texts), min_size=1, max_size=8))
def test_tags_of_columns_are_those_of_their_rows(rows):
    left, right = (pl.Series(column, dtype=pl.String) for column in zip(*rows, strict=True))
    assert keyed_tags(KEY, "content", left, right).to_list() == [keyed_tag(KEY, "content", *row) for row in rows]


@given(st.lists(texts, min_size=1, max_size=8), texts)
def test_a_constant_part_is_framed_like_a_column_of_it(values, constant):
    frame = pl.DataFrame({"id": values}, schema={"id": pl.String})
    tags = frame.select(keyed_column(KEY, "record", constant, pl.col("id")).str.slice(0, 32)).to_series().to_list()
    assert tags == [keyed_tag(KEY, "record", constant, value) for value in values]


def test_null_stays_null():
    assert keyed_tags(KEY, "subject", pl.Series([None, ""], dtype=pl.String)).to_list() == [None, keyed_tag(KEY, "subject", "")]


@given(st.lists(texts, max_size=8))
def test_words_spell_the_tags_they_were_made_of(values):
    tags = [keyed_tag(KEY, "subject", value) for value in values]
    digests = pl.DataFrame({"id": values}, schema={"id": pl.String}).select(keyed_column(KEY, "subject", pl.col("id"))).to_series()
    assert words(digests).tolist() == words_of_tags(tags).tolist()
    assert tags_of_words(*words(digests).T) == tags
