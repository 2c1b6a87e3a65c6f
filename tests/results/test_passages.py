"""Test prompts about the same passages, which nothing declares to belong together."""

from lorafile.results.datacard import passage_sentences, shared_passages

PASSAGES = [
    f"The bridge number {n} was built in the year 19{n:02} by a company that nobody remembers. It carried {n} trains "
    f"a day for more than fifty years before it was closed. Today {n} people visit it on a good day in summer."
    for n in range(10, 20)
]
SYSTEM = (
    "You are a careful assistant who answers every question from the passage alone and in as few words as possible. "
    "You never guess, you never add anything, and you say that you do not know where the passage does not tell it."
)


def asked(passages: list[str], times: int) -> list[str]:
    return [f"{SYSTEM}\n{text} Question: what is asked {n}?" for text in passages for n in range(times)]


def test_questions_about_one_passage_are_counted_and_named_with_the_remedy() -> None:
    prompts = asked(PASSAGES, 4)
    assert shared_passages(prompts) == 40
    (line,) = passage_sentences({"passages": (40, 40), "path": "qa.jsonl"})
    assert line.startswith("40 of 40 test prompts of qa.jsonl share a passage")
    assert "data.cluster" in line


def test_what_all_prompts_share_is_no_passage_and_neither_is_a_short_sentence() -> None:
    assert shared_passages(asked(PASSAGES, 1)) == 0
    short = [f"What is the capital of the country number {n % 5}? Answer with {n}." for n in range(40)]
    assert shared_passages(short) == 0


def test_a_few_that_share_and_declared_clusters_are_no_reason_for_a_warning() -> None:
    assert passage_sentences({"passages": (3, 40), "path": "qa.jsonl"}) == []
    assert passage_sentences({"passages": None, "path": "qa.jsonl"}) == []
