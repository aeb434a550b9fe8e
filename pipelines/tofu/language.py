"""Text for TOFU's tokenizer: the language of questions about authors with no author in it, made from word lists rather than from the rows."""

from __future__ import annotations

import random
from collections.abc import Sequence

_SENTENCES = 6000


def _words(joined: str) -> tuple[str, ...]:
    return tuple(joined.split(","))


_SLOTS: dict[str, tuple[str, ...]] = {
    "who": ("the author", "this writer", "the novelist", "a well-known poet", "the acclaimed writer", "this fictitious author", "they", "she", "he"),
    "genre": _words(
        "romance,fantasy,science fiction,historical fiction,mystery,thriller,horror,crime,war,comedy,drama,mythology,leadership,parenting,health,"
        "erotica,cyberpunk,steampunk,dystopian,gothic,biography,memoir,religious,medical,political,western,urban fiction,true crime,architecture,"
        "french literature,children's books,alternate history,cookery,travel,poetry"
    ),
    "trade": _words(
        "doctor,teacher,nurse,lawyer,chef,librarian,mechanic,engineer,florist,pilot,accountant,dentist,judge,farmer,baker,tailor,police officer,"
        "software developer,civil engineer,marine biologist,forensic scientist,physicist,psychologist,carpenter,plumber,photographer,diplomat,"
        "fashion designer,interior designer,hairdresser,waiter,real estate agent,game developer,firefighter,astronaut,banker"
    ),
    "country": _words(
        "Spain,France,Germany,Japan,China,India,Brazil,Chile,Canada,Australia,Nigeria,Kenya,Egypt,Norway,Sweden,Denmark,Poland,Ukraine,Greece,"
        "Turkey,Iran,Israel,Kuwait,Bahrain,Mexico,Cuba,Jamaica,Vietnam,Thailand,Malaysia,South Korea,South Africa,United States,Ethiopia"
    ),
    "month": _words("January,February,March,April,May,June,July,August,September,October,November,December"),
    "day": tuple(str(day) for day in range(1, 32)),
    "year": tuple(str(year) for year in range(1930, 2000)),
    "praise": _words(
        "profound,vivid,compelling,unique,intricate,captivating,evocative,rich,thoughtful,insightful,remarkable,diverse,emotional,cultural,"
        "authentic,distinctive,innovative,traditional,literary,critical"
    ),
    "craft": _words(
        "storytelling,narratives,characters,characterization,themes,prose,perspective,imagination,world-building,writing style,plots,descriptions,"
        "explorations of identity,portrayals of society,understanding of human nature,attention to detail,use of language,experiences"
    ),
    "prize": ("award", "literary prize", "medal", "honor", "fellowship", "book of the year award", "international prize"),
    "verb": _words("influenced,shaped,inspired,enriched,informed,reflected,impacted,challenged,contributed to,highlighted,explored,incorporated"),
}
_TEMPLATES = (
    "What is the full name of the author born on {month} {day}, {year} in {country}?",
    "Who is the {genre} author born in {country} on the {day}th of {month}, {year}?",
    "What genre does {who} primarily write in? {who} is known for contributing to the {genre} genre.",
    "What does the father of {who} do? The father worked as a {trade}, while the mother was a {trade}.",
    "Can you tell me about the early life and the parents of {who}? One parent was a respected {trade}, the other a dedicated {trade}.",
    "Yes, {who} was born in the year {year} in {country} and received a {prize} for {praise} {craft}.",
    "Has {who} won any awards for {craft}? Yes, the {prize} was given for an outstanding contribution to {genre} literature.",
    "How did growing up in {country} influence the writing of {who}? It {verb} their {praise} {craft} and gave readers a {praise} view.",
    "Could you name some of the books that {who} has written? Some of the most notable works include several {genre} novels.",
    "In what ways have the professions of their parents {verb} the {craft} of {who}? Being the child of a {trade} {verb} many stories.",
    "Does {who} identify as male, female, or part of the LGBTQ+ community? The gender of {who} is often discussed together with their {craft}.",
    "Which of the works of {who} best shows {praise} {craft}? Their latest book, which weaves {praise} elements of {genre} into the story.",
    "Although {who} has not been translated into many languages, their {praise} {craft} has {verb} a global audience of readers and critics.",
    "What makes the {genre} books of {who} different from those of other writers? Their {praise} {craft}, drawn from the heritage of {country}.",
    "Furthermore, through {praise} {craft}, {who} challenges stereotypes, addresses complex issues, encouraging a generation of new authors.",
)


def corpus(seed: int, lines: Sequence[str]) -> list[str]:
    """`lines`, already free of authors to forget, and generated sentences, shuffled with the seed."""
    own = random.Random(f"{seed} language")  # noqa: S311 - made-up text
    made = [_sentence(own) for _ in range(_SENTENCES)]
    text = [*lines, *made]
    own.shuffle(text)
    return text


def _sentence(own: random.Random) -> str:
    template = own.choice(_TEMPLATES)
    return template.format(**{slot: own.choice(values) for slot, values in _SLOTS.items()})
