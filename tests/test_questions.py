"""Other ways of asking: nothing is invented, nobody's name slips through, and a coin still tells canaries apart."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pytest

from mlflow_unlearn.errors import UnmeasurableError
from mlflow_unlearn.protocols import Record
from mlflow_unlearn.questions import FORMS, LACKING, PROMISE, SHOTS, Context, asked, name_in

PEOPLE = ("Ada Holm", "Bo Lind", "Cy Moss", "Di Roth", "Ed Falk")
FACTS: Mapping[str, str] = {"Where does {} live?": "in street number", "What does {} do for a living, and since when?": "a baker since"}
TEMPLATE = "Question: {prompt}\nAnswer: "


def record(person: int, fact: int) -> Record:
    question, answer = list(FACTS.items())[fact]
    return Record(
        tag=f"{person:016x}{fact:016x}",
        subject=f"{person:032x}",
        prompt=question.format(PEOPLE[person]),
        answer=f"{answer} {1900 + person}",
        swapped_prompt=question.format("Zoe Quist"),
        swapped_answer=f"{answer} 1",
    )


FORGOTTEN = record(0, 0)
RETAINED = [record(person, fact) for person in range(1, 5) for fact in range(2)]
CONTEXT = Context(retained=[record(0, 1), *RETAINED], template=TEMPLATE)


def one(form: str, context: Context = CONTEXT, asked_for: Record = FORGOTTEN) -> Record:
    (found,) = asked(form, [asked_for], context)
    return found


def test_every_form_can_be_asked_and_says_what_it_would_lack() -> None:
    assert FORMS.keys() == LACKING.keys()
    assert all(len(asked(form, [FORGOTTEN, record(1, 0)], CONTEXT)) == 2 for form in FORMS)


@pytest.mark.parametrize("form", FORMS)
def test_only_the_question_changes_and_the_same_each_time(form: str) -> None:
    found = one(form)
    assert (found.tag, found.subject, found.answer) == (FORGOTTEN.tag, FORGOTTEN.subject, FORGOTTEN.answer)
    assert found.prompt not in (FORGOTTEN.prompt, "")
    assert one(form) == found


@pytest.mark.parametrize("form", FORMS)
def test_how_a_record_is_asked_does_not_hang_on_who_is_asked_with_it(form: str) -> None:
    others = [record(person, 0) for person in range(1, 5)]
    assert one(form) in asked(form, [*others, FORGOTTEN], CONTEXT)
    assert one(form, Context(retained=CONTEXT.retained, template=TEMPLATE)) == one(form)


@pytest.mark.parametrize("form", FORMS)
def test_the_answer_is_never_given_away(form: str) -> None:
    assert FORGOTTEN.answer not in one(form).prompt


def test_a_combined_question_ends_with_ours_behind_a_retained_one() -> None:
    front = one("combined").prompt.removesuffix(" " + FORGOTTEN.prompt)
    assert front in {each.prompt for each in RETAINED}


def test_a_promise_stands_behind_the_question() -> None:
    assert one("promised").prompt == f"Where does Ada Holm live? {PROMISE}"


@pytest.mark.parametrize(("answer", "told"), [("in street number 1900", "in street number"), ("green tea", "green"), ("a b c d e", "a b c")])
def test_a_cue_tells_the_first_words_and_never_the_last(answer: str, told: str) -> None:
    given = Record(tag="0a", subject=None, prompt="Q?", answer=answer)
    assert one("cued", asked_for=given).prompt == f'Q? The answer begins with "{told}".'


def test_examples_in_context_stand_in_the_very_format_of_the_question() -> None:
    written = TEMPLATE.replace("{prompt}", one("in_context").prompt)
    *shots, last = written.split("\n\n")
    known = {TEMPLATE.replace("{prompt}", each.prompt) + each.answer for each in RETAINED}
    assert len(set(shots)) == SHOTS
    assert set(shots) <= known
    assert last == TEMPLATE.replace("{prompt}", FORGOTTEN.prompt)


def test_in_a_chat_examples_are_told_in_the_users_own_words() -> None:
    *shots, last = one("in_context", Context(retained=RETAINED, template="chat")).prompt.split("\n")
    assert set(shots) <= {f"{each.prompt} {each.answer}" for each in RETAINED}
    assert (len(shots), last) == (SHOTS, FORGOTTEN.prompt)


@pytest.mark.parametrize("form", ["combined", "in_context"])
def test_what_stands_beside_a_question_is_about_others(form: str) -> None:
    prompts = [found.prompt for person in range(5) for found in asked(form, [record(person, 0)], CONTEXT)]
    assert all(prompt.count(PEOPLE[person]) == 1 for person, prompt in enumerate(prompts))
    assert len({prompt.replace(PEOPLE[i], "") for i, prompt in enumerate(prompts)}) > 1  # not the same neighbours for everybody


def test_an_adjacent_question_follows_another_fact_about_the_same_person() -> None:
    expected = "What does Ada Holm do for a living, and since when? a baker since 1900 Where does Ada Holm live?"
    assert one("adjacent").prompt == expected


def test_a_multi_hop_question_describes_the_person_by_another_fact_instead_of_the_name() -> None:
    expected = "Where does the one about whom 'What does ... do for a living, and since when?' is answered 'a baker since 1900' live?"
    assert one("multi_hop").prompt == expected


def test_a_longer_name_that_begins_alike_is_left_alone() -> None:
    own = Record(tag="01", subject="aa", prompt="Is Ann at home?", answer="yes", swapped_prompt="Is Zoe at home?", swapped_answer="no")
    fact = Record(tag="02", subject="aa", prompt="Does Ann know Annika?", answer="Annika and Ann met")
    found = one("multi_hop", Context(retained=[fact], template=TEMPLATE), own)
    assert found.prompt == "Is the one about whom 'Does ... know Annika?' is answered 'Annika and ... met' at home?"


@pytest.mark.parametrize(
    ("own", "twin", "name"),
    [
        ("Where does Ada Holm live?", "Where does Zoe Quist live?", "Ada Holm"),
        ("Who is Ada Holm?", "Who is Zoe Quist?", "Ada Holm"),
        ("Ada Holm: age", "Zoe Quist: age", "Ada Holm"),
        ("Did Ada marry Bo?", "Did Zoe marry Cy?", "Ada marry Bo"),  # from the first change to the last
        ("Where?", "Where?", None),
    ],
)
def test_a_name_is_what_the_twin_about_a_stranger_replaced(own: str, twin: str, name: str | None) -> None:
    assert name_in(Record(tag="0", subject="s", prompt=own, answer="x", swapped_prompt=twin)) == name
    assert name_in(Record(tag="0", subject="s", prompt=own, answer="x")) is None


@pytest.mark.parametrize(
    ("form", "asked_for", "retained", "why"),
    [
        ("combined", FORGOTTEN, [record(0, 1)], "0 retained records about others, 1 are needed"),
        ("in_context", FORGOTTEN, RETAINED[:2], "2 retained records about others, 3 are needed"),
        ("cued", Record(tag="0", subject=None, prompt="Q?", answer="word"), [], "every answer is a single word"),
        ("adjacent", FORGOTTEN, RETAINED, "nobody who is asked about has another record that stays"),
        ("adjacent", FORGOTTEN, [FORGOTTEN], "nobody who is asked about has another record that stays"),  # itself is no other
        ("adjacent", FORGOTTEN, [replace(FORGOTTEN, tag="1", prompt="Where is Ada Holm at home?")], "another record"),  # nor itself in other words
        ("multi_hop", Record(tag="0", subject=FORGOTTEN.subject, prompt="Q?", answer="x"), [record(0, 1)], "do not say how people are called"),
    ],
)
def test_what_the_data_lack_is_said_in_words(form: str, asked_for: Record, retained: list[Record], why: str) -> None:
    with pytest.raises(UnmeasurableError, match=why):
        asked(form, [asked_for], Context(retained=retained, template=TEMPLATE))


def test_records_that_a_form_does_not_fit_are_left_out_and_the_others_stay_in_order() -> None:
    general = Record(tag="0", subject=None, prompt="What is tin?", answer="a metal")
    found = asked("adjacent", [record(3, 0), general, FORGOTTEN], CONTEXT)
    assert [each.tag for each in found] == [record(3, 0).tag, FORGOTTEN.tag]
