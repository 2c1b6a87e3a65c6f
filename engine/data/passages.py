"""Extractive question answering as text: passage and question, the first answer or a phrase for none. No torch."""

from typing import Any

from lorafile.engine.data.templates import Example, Row, fill
from lorafile.errors import NodeError

PROMPT = "{context}\n\nQuestion: {question}\nAnswer:"
PROMPT_OR_NONE = 'If the text below does not answer the question, write "{unanswerable}".\n\n' + PROMPT


def passage_example(row: Row, data: dict[str, Any]) -> Example:
    """Return a row of SQuAD: every accepted answer stays beside it, none where the passage holds none.

    :raises NodeError: when a row has no answer and `data.unanswerable` is empty
    """
    answers = accepted(row["answers"])
    phrase = data.get("unanswerable", "")
    if not answers and not phrase:
        raise NodeError(
            'data.unanswerable: a row has no answer; say what a model should write then: unanswerable = "unanswerable".'
        )
    answer = answers[0] if answers else phrase
    default = {"prompt": PROMPT_OR_NONE if phrase else PROMPT, "completion": " {answer}"}
    written = data["template"] or default
    full = {**row, "answer": answer, "unanswerable": phrase}
    about: dict[str, Any] = {"references": answers}
    if phrase:
        about["unanswerable"] = phrase
    return Example(fill(written["prompt"], full), fill(written["completion"], full), answer, about=about)


def accepted(answers: Any) -> list[str]:
    """Return the accepted answers, each once: from `{text: [...]}`, as the hub has them, or a list of `{text}`."""
    if isinstance(answers, dict):
        answers = answers.get("text", [])
    if isinstance(answers, str):
        answers = [answers] if answers else []
    found = [str(one["text"] if isinstance(one, dict) else one) for one in answers]
    return list(dict.fromkeys(found))
