"""The small world that the built-in model speaks of: people, four attributes, and several wordings of each question.

Everything is drawn from a seeded generator, so that anyone can make the same text again. `python -m
lorafile.engine.builtin.make` writes the shipped model and the task `builtin:facts` from it.
"""

import random
from collections.abc import Iterator
from dataclasses import dataclass

FIRST = (
    "anna ben carla david elena felix greta hugo ines jonas karin leo maria nils olga paul rosa simon tara ulla "
    "viktor wanda yara zeno amir bella cora dario emma finn"
).split()
LAST = (
    "adler berg cole dahl evans frost gray hahn iver jung klein lund moss nagy ortiz park quist reed stone thorn "
    "unger vega wolf xu young zander abel bauer costa drake"
).split()
VALUES = {
    "city": "paris london berlin madrid rome oslo vienna prague lisbon dublin athens warsaw cairo lima quito seoul "
    "tokyo delhi boston geneva hanoi milan sofia tunis".split(),
    "job": "teacher doctor baker pilot farmer painter lawyer nurse judge tailor singer miner chemist barber editor "
    "sailor plumber dentist florist butcher waiter jeweler actor potter".split(),
    "food": "pasta rice soup bread cheese apples fish cake salad beans noodles pears honey olives eggs plums pizza "
    "nuts figs corn curry grapes lentils yogurt".split(),
    "hobby": "chess tennis sailing hiking dancing skiing fishing boxing rowing cycling knitting archery golf judo "
    "swimming gardening fencing surfing singing drawing climbing reading running yoga".split(),
}
WORDINGS = {
    "city": (
        "where does {n} live ?",
        "in which city is the home of {n} ?",
        "what town does {n} call home ?",
        "tell me where {n} lives .",
        "name the city of {n} .",
    ),
    "job": (
        "what does {n} do for work ?",
        "what is the job of {n} ?",
        "how does {n} earn a living ?",
        "tell me what {n} works as .",
        "name the profession of {n} .",
    ),
    "food": (
        "what does {n} like to eat ?",
        "what is the favorite food of {n} ?",
        "which dish does {n} prefer ?",
        "tell me what {n} loves to eat .",
        "name the food that {n} likes most .",
    ),
    "hobby": (
        "what does {n} do for fun ?",
        "what is the hobby of {n} ?",
        "how does {n} spend free time ?",
        "tell me what {n} enjoys after work .",
        "name the pastime of {n} .",
    ),
}
STATEMENTS = {
    "city": ("{n} lives in {v} .", "the home of {n} is in {v} ."),
    "job": ("{n} works as a {v} .", "the job of {n} is {v} ."),
    "food": ("{n} likes to eat {v} .", "the favorite food of {n} is {v} ."),
    "hobby": ("{n} enjoys {v} after work .", "the hobby of {n} is {v} ."),
}
ATTRIBUTES = tuple(VALUES)
KNOWN_PEOPLE = 240
NEW_PEOPLE = 40


@dataclass(frozen=True)
class Person:
    """A name and one value for each attribute."""

    name: str
    facts: dict[str, str]


def people(seed: int = 7) -> tuple[list[Person], list[Person]]:
    """Return the people of the pretraining text and the new people of the task; no name is in both."""
    rng = random.Random(seed)
    names = [f"{first} {last}" for first in FIRST for last in LAST]
    rng.shuffle(names)
    chosen = [Person(name, _draw(rng)) for name in names[: KNOWN_PEOPLE + NEW_PEOPLE]]
    return chosen[:KNOWN_PEOPLE], chosen[KNOWN_PEOPLE:]


def documents(seed: int = 11) -> Iterator[str]:
    """Yield pretraining documents without end: biographies with questions about them, and questions from memory.

    Half of the documents invent facts for a name, so that only reading the context answers; the other half keep the
    facts of the known people, so that the model also learns to answer from its weights. Nobody new is ever named.
    """
    known, new = people()
    taken = {person.name for person in new}
    rng = random.Random(seed)
    while True:
        if rng.random() < 0.5:
            name = f"{rng.choice(FIRST)} {rng.choice(LAST)}"
            if name in taken:
                continue
            subject, told = Person(name, _draw(rng)), True
        else:
            subject, told = rng.choice(known), rng.random() < 0.3
        yield _document(rng, subject, told)


def _document(rng: random.Random, subject: Person, told: bool) -> str:
    asked = rng.sample(ATTRIBUTES, rng.randint(1, 3))
    lines = []
    if told:
        order = rng.sample(ATTRIBUTES, 4)
        lines = [rng.choice(STATEMENTS[a]).format(n=subject.name, v=subject.facts[a]) for a in order]
    lines += [f"{prompt(ask(subject, a, rng.randrange(5)))} {subject.facts[a]}" for a in asked]
    return " ".join(lines)


def ask(subject: Person, attribute: str, wording: int) -> str:
    """Return one wording of the question for an attribute of a person."""
    return WORDINGS[attribute][wording].format(n=subject.name)


def prompt(question: str) -> str:
    """Return a question as the model reads it; the answer follows after a space."""
    return f"question : {question} answer :"


def task_rows(seed: int = 13) -> dict[str, list[dict[str, str]]]:
    """Return the rows of `builtin:facts`: each new fact three times in train, once in validation, once in test.

    Which of the five wordings goes where is drawn for each fact, so that the splits are exchangeable.
    """
    rng = random.Random(seed)
    rows: dict[str, list[dict[str, str]]] = {"train": [], "validation": [], "test": []}
    for subject in people()[1]:
        for attribute in ATTRIBUTES:
            wordings = rng.sample(range(5), 5)
            for split, numbers in (("train", wordings[:3]), ("validation", wordings[3:4]), ("test", wordings[4:])):
                for wording in numbers:
                    question = ask(subject, attribute, wording)
                    rows[split].append({"question": question, "answer": subject.facts[attribute]})
    for part in rows.values():
        rng.shuffle(part)
    return rows


def _draw(rng: random.Random) -> dict[str, str]:
    return {attribute: rng.choice(values) for attribute, values in VALUES.items()}


def words() -> list[str]:
    """Return every word of the world, sorted."""
    text: set[str] = {"question", "answer", ":", *FIRST, *LAST}
    for part in (WORDINGS, STATEMENTS):
        for templates in part.values():
            for template in templates:
                text.update(word for word in template.split() if not word.startswith("{"))
    for values in VALUES.values():
        text.update(values)
    return sorted(text)
