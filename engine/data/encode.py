"""Text to token ids: what is supervised, and what is the prompt. Needs a tokenizer, and no torch."""

import contextlib
import json
import os
import re
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import date
from itertools import accumulate, pairwise
from pathlib import Path
from types import FrameType
from typing import Any

from lorafile.engine.data.example import REASONING, Chat, Example, Spans
from lorafile.errors import NodeError
from lorafile.specs.snapshot import is_encoder

_MARKS = re.compile(r"\{%-?\s*generation\s*-?%\}")
_TODAY = re.compile(r"""strftime_now\(\s*(['"])(.*?)\1\s*\)""")
_TEMPLATE_SECONDS = 10.0  # seconds for one row
# Model types whose positions are learned, and those of them that count positions from the padding token's number on.
_LEARNED = ("albert", "bert", "biogpt", "distilbert", "electra", "gpt2", "gpt_bigcode", "gpt_neo", "opt")
_AFTER_PADDING = ("camembert", "data2vec-text", "mpnet", "roberta", "roberta-prelayernorm", "xlm-roberta", "xmod")
Ids = list[int]


@dataclass(frozen=True)
class Encoded:
    """One example: its token ids, 1 for each that is supervised, and how many of them are its prompt.

    :ivar types: of a pair of sentences, 0 or 1 for each token, where the tokenizer tells
    """

    input_ids: Ids
    supervised: Ids
    prompt: int
    types: Ids | None = None

    def cut(self, limit: int) -> "Encoded":
        """Return its first tokens."""
        return Encoded(self.input_ids[:limit], self.supervised[:limit], min(self.prompt, limit))


def load_tokenizer(path: str, trust_remote_code: bool = False) -> Any:
    """Return a model's tokenizer, with a padding token."""
    from transformers import AutoTokenizer

    try:
        with _without_stdout():
            tokenizer = AutoTokenizer.from_pretrained(path, trust_remote_code=trust_remote_code, local_files_only=True)
    except Exception as error:  # whatever tokenizers and transformers make of files that are not theirs
        raise NodeError(f"model.path: the tokenizer in {path} cannot be loaded: {error}") from error
    if not isinstance(tokenizer.model_max_length, (int, float)):
        raise NodeError(f"model.path: the tokenizer in {path} has a model_max_length that is not a number.")
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token or tokenizer.unk_token
    return tokenizer


def own_end_token(path: str) -> int | None:
    """Return the first end token that a model's generation settings, or its config, name."""
    for name in ("generation_config.json", "config.json"):
        file = Path(path) / name
        end = json.loads(file.read_text(encoding="utf-8")).get("eos_token_id") if file.is_file() else None
        end = end[0] if isinstance(end, list) and end else end
        if isinstance(end, int):
            return end
    return None


@contextlib.contextmanager
def _without_stdout() -> Iterator[None]:
    """Keep what tokenizers writes past Python off stdout: names out of a file, as they stand there, amid our JSON."""
    sys.stdout.flush()
    kept = os.dup(1)
    try:
        with Path(os.devnull).open("w") as nothing:
            os.dup2(nothing.fileno(), 1)
        yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)


def chat_of(tokenizer: Any, data: dict[str, Any]) -> Chat:
    """Return the chat template of a data section; one that cannot write a conversation says so in a sentence.

    :param data: `jinja`, the text of a template, or `jinja_name`, the name of one of the tokenizer's, in place of its
        own; `date`, what it prints as today's
    """

    def template(tools: list[Any] | None) -> str:
        return _chat_template(tokenizer, data, tools)

    def text(messages: list[Any], opens: bool, tools: list[Any] | None) -> str:
        options = {"chat_template": template(tools), "tools": tools, "add_generation_prompt": opens}
        with _template_errors():
            return str(tokenizer.apply_chat_template(messages, tokenize=False, **options))

    def marked(messages: list[Any], tools: list[Any] | None) -> Spans | None:
        if not _MARKS.search(template(tools)):
            return None
        from transformers.utils.chat_template_utils import render_jinja_template

        options: dict[str, Any] = {"chat_template": template(tools), "return_assistant_tokens_mask": True}
        options |= {name: token for name, token in tokenizer.special_tokens_map.items() if isinstance(token, str)}
        with _template_errors():
            rendered: Any = render_jinja_template([messages], tools=tools, **options)
        return tuple((start, end) for start, end in rendered[1][0])

    reasoning = next((end for end in REASONING if end in chat_templates(tokenizer, data)), "")
    return Chat(text, marked, _without_special_tokens(tokenizer), reasoning)


def chat_templates(tokenizer: Any, data: dict[str, Any]) -> str:
    """Return the text of every chat template that rows may go through; empty where there is none."""
    if "jinja" in data:
        return str(data["jinja"])
    own = tokenizer.chat_template or ""
    texts = own if isinstance(own, dict) else {"default": own}
    return str(texts.get(data["jinja_name"], "")) if "jinja_name" in data else "".join(texts.values())


def _chat_template(tokenizer: Any, data: dict[str, Any], tools: list[Any] | None) -> str:
    """Return the template for a row, with the date of the lock where it prints today's.

    :raises NodeError: when there is none
    """
    own, given = tokenizer.chat_template, data.get("jinja", data.get("jinja_name"))
    if "jinja_name" in data and not (isinstance(own, dict) and given in own):
        names = ", ".join(own) if isinstance(own, dict) else "none by name"
        raise NodeError(f'data.chat_template: there is no file "{given}", and the tokenizer has {names}')
    if own is None and given is None:
        raise NodeError(
            "data.format: the model's tokenizer has no chat template; set one with data.chat_template, or use another "
            "format or a data.template"
        )
    try:
        template = str(tokenizer.get_chat_template(given, tools))
    except ValueError as error:
        raise NodeError(f"data.chat_template: {error}") from error
    if _TODAY.search(template) and "date" in data:
        today = date.fromisoformat(data["date"])
        template = _TODAY.sub(lambda call: json.dumps(today.strftime(call[2])), template)
    if "strftime_now(" in template:
        raise NodeError(
            "data: the chat template prints today's date, so its text would change every day; run lora lock to pin "
            "the date, or write a date into a copy of the template and set it with data.chat_template"
        )
    return template


def _without_special_tokens(tokenizer: Any) -> Callable[[str], str]:
    """Return what takes special tokens out of a text, as decoding an answer does."""
    names = {token.content for token in tokenizer.added_tokens_decoder.values() if token.special}
    names |= {*tokenizer.all_special_tokens}
    pattern = re.compile("|".join(re.escape(name) for name in sorted(names - {""}, key=len, reverse=True)) or "(?!)")
    return lambda text: pattern.sub("", text)


@contextlib.contextmanager
def _template_errors() -> Iterator[None]:
    """Turn whatever a template does wrong with a row into a NodeError: it is a program that others wrote."""
    try:
        with time_limit(_TEMPLATE_SECONDS):
            yield
    except Exception as error:
        why = "it needs more memory than is available" if isinstance(error, MemoryError) else str(error).strip()
        raise NodeError(f"data: the chat template rejects a row: {why or type(error).__name__}") from error


def encode(tokenizer: Any, examples: list[Example], completion_only: bool) -> list[Encoded]:
    """Return the tokens of some examples, each closed by the end token.

    An example is tokenized as one text where that leaves the tokens of what stands before an answer as they are;
    otherwise part by part, because at inference the prompt stands alone.
    """
    # Where the parts of each end, in characters: before each answer and after it; the last is the end of the text.
    cuts = [[*(at for turn in e.turns for at in turn), len(e.prompt), len(e.text)] for e in examples]
    texts = [[example.text[:cut] for cut in at] for example, at in zip(examples, cuts, strict=True)]
    ids = iter(
        ids_of(tokenizer, ((text, e.special) for e, parts in zip(examples, texts, strict=True) for text in parts))
    )
    return [
        _encoded(tokenizer, example, at, [next(ids) for _ in at], completion_only)
        if example.marked is None or not completion_only
        else _encoded_by_marks(tokenizer, example, [next(ids) for _ in at])
        for example, at in zip(examples, cuts, strict=True)
    ]


def encode_texts(tokenizer: Any, examples: list[Example], limit: int | None = None) -> list[Encoded]:
    """Return the tokens of texts, or of pairs of sentences, as an encoder reads them: with its own special tokens.

    :param limit: the most tokens, where longer texts are cut; of a pair the longer sentence loses first
    """
    cut: dict[str, Any] = {} if limit is None else {"truncation": True, "max_length": limit}
    encoded = []
    for example in examples:
        first = example.prompt.removesuffix(f"\n{example.pair}") if example.pair is not None else example.prompt
        tokens = tokenizer(first, example.pair, verbose=False, **cut)
        ids = list(tokens["input_ids"])
        encoded.append(Encoded(ids, [0] * len(ids), len(ids), tokens.get("token_type_ids")))
    return encoded


def most_tokens(path: str) -> int | None:
    """Return how many tokens a model has learned positions for; None where positions are computed."""
    config = json.loads((Path(path) / "config.json").read_text(encoding="utf-8"))
    kind, positions = config.get("model_type"), config.get("max_position_embeddings") or config.get("n_positions")
    if kind in _AFTER_PADDING and isinstance(positions, int):
        return positions - int(config.get("pad_token_id") or 0) - 1
    return positions if kind in _LEARNED and isinstance(positions, int) else None


def context_tokens(path: str) -> int | None:
    """Return how many tokens a model reads, by its config; None where it does not say."""
    config = json.loads((Path(path) / "config.json").read_text(encoding="utf-8"))
    text = config.get("text_config") or config
    size = next((text[name] for name in ("max_position_embeddings", "n_positions", "n_ctx") if text.get(name)), None)
    return most_tokens(path) or (size if isinstance(size, int) else None)


def is_encoder_at(path: str) -> bool:
    """Return whether the model in a directory is an encoder."""
    return is_encoder(json.loads((Path(path) / "config.json").read_text(encoding="utf-8")))


def ids_of(tokenizer: Any, items: Iterable[tuple[str, bool]]) -> list[Ids]:
    """Return the token ids of (text, whether it holds its special tokens already), many at once."""
    listed = list(items)
    tokens: list[Ids] = [[] for _ in listed]
    for special in (False, True):
        numbers = [number for number, (text, holds) in enumerate(listed) if text and holds is special]
        if numbers:
            texts = [listed[number][0] for number in numbers]
            encoded = tokenizer(texts, add_special_tokens=not special, verbose=False)
            for number, ids in zip(numbers, encoded["input_ids"], strict=True):
                tokens[number] = list(ids)
    return tokens


def _encoded(tokenizer: Any, example: Example, cuts: list[int], ids: list[Ids], completion_only: bool) -> Encoded:
    end, whole = tokenizer.eos_token_id, ids[-1]
    # Some tokenizers close every text with the end token.
    before = [part[:-1] if part and part[-1] == end and not example.special else part for part in ids[:-1]]
    if any(whole[: len(part)] != part for part in before):
        # The parts tokenized each for itself: the tokens of what stands before each cut, and of the whole.
        parts = ids_of(tokenizer, ((example.text[a:b], True) for a, b in pairwise(cuts)))
        *before, whole = accumulate([before[0], *parts])
    places = [len(part) for part in before]
    prompt = places[-1]
    if end is not None and end not in whole[prompt:]:
        whole = [*whole, end]
    answers = [*zip(places[:-1:2], places[1:-1:2], strict=True), (prompt, len(whole))]
    if not completion_only:
        answers = [(0, len(whole))]
    marks = [0] * len(whole)
    for start, stop in answers:
        first = max(start, 1)  # nothing predicts the very first token
        marks[first:stop] = [1] * (stop - first)
    return Encoded(whole, marks, prompt)


def _encoded_by_marks(tokenizer: Any, example: Example, ids: list[Ids]) -> Encoded:
    """Return the tokens of an example of which its chat template marks what is supervised.

    The tokens are those of the whole text, and every token that a mark overlaps is supervised, as in transformers'
    `return_assistant_tokens_mask`.

    :raises NodeError: when the tokenizer cannot tell the characters of a token
    """
    if not tokenizer.is_fast:
        raise NodeError(
            "data: the chat template marks supervised text with {% generation %}, which only tokenizers from the "
            "tokenizers library can map to tokens; set a template without marks with data.chat_template"
        )
    tokens = tokenizer(example.text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
    whole, before = list(tokens["input_ids"]), ids[-2]
    marks = [0] * len(whole)
    for number, (start, end) in enumerate(tokens["offset_mapping"]):
        marks[number] = int(number > 0 and any(start < stop and end > first for first, stop in example.marked or ()))
    if whole[: len(before)] == before:
        prompt = len(before)
    else:  # a token reaches over the end of the prompt
        ends = [end for _, end in tokens["offset_mapping"]]
        prompt = next((number for number, end in enumerate(ends) if end > len(example.prompt)), len(whole))
    return Encoded(whole, marks, prompt)


@contextlib.contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Raise TimeoutError in what takes longer, where this is the main thread of a system that has timers.

    For rendering untrusted chat templates: Jinja's sandbox prevents side effects, not endless loops.
    """
    if threading.current_thread() is not threading.main_thread() or not hasattr(signal, "setitimer"):
        yield
        return

    def late(_number: int, _frame: FrameType | None) -> None:
        raise TimeoutError(f"takes longer than {seconds:g} s")

    before, began = signal.signal(signal.SIGALRM, late), time.monotonic()
    left, interval = signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:  # a timer that the caller had set goes on
        signal.setitimer(signal.ITIMER_REAL, max(left - (time.monotonic() - began), 0.001) if left else 0.0, interval)
        signal.signal(signal.SIGALRM, before)
