"""Text to token ids: what is supervised, and what is the prompt. Needs a tokenizer, and no torch."""

import contextlib
import json
import os
import re
import signal
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import accumulate, pairwise
from pathlib import Path
from types import FrameType
from typing import Any

from lorafile.engine.data.example import Chat, Example
from lorafile.errors import NodeError
from lorafile.specs.snapshot import is_encoder

_MARKS = re.compile(r"\{%-?\s*generation\s*-?%\}")
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
        raise NodeError(f"model.path: the tokenizer in {path} has a model_max_length that is no number.")
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


def chat_of(tokenizer: Any) -> Chat:
    """Return a tokenizer's chat template; one that cannot write a conversation says so in a sentence."""

    def text(messages: list[Any], opens: bool) -> str:
        if tokenizer.chat_template is None:
            raise NodeError(
                "data.format: the model's tokenizer has no chat template; use another format or a data.template."
            )
        with _template_errors():
            return str(tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=opens))

    def marked(messages: list[Any]) -> list[tuple[int, int]] | None:
        template = tokenizer.chat_template
        if not isinstance(template, str) or not _MARKS.search(template):
            return None
        from transformers.utils.chat_template_utils import render_jinja_template

        options: dict[str, Any] = {"chat_template": template, "return_assistant_tokens_mask": True}
        options |= {name: token for name, token in tokenizer.special_tokens_map.items() if isinstance(token, str)}
        with _template_errors():
            rendered: Any = render_jinja_template([messages], **options)
        return [(start, end) for start, end in rendered[1][0]]

    return Chat(text, marked)


@contextlib.contextmanager
def _template_errors() -> Iterator[None]:
    """Turn whatever a template does wrong with a row into a NodeError: it is a program that somebody else wrote."""
    try:
        with time_limit(_TEMPLATE_SECONDS):
            yield
    except Exception as error:
        why = "it needs more memory than there is" if isinstance(error, MemoryError) else str(error).strip()
        raise NodeError(f"data: the tokenizer's chat template refuses a row: {why or type(error).__name__}") from error


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
    finally:  # a timer that somebody else had set goes on
        signal.setitimer(signal.ITIMER_REAL, max(left - (time.monotonic() - began), 0.001) if left else 0.0, interval)
        signal.signal(signal.SIGALRM, before)
