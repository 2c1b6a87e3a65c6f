"""Make the built-in model, its tokenizer and its task again: `python -m lorafile.engine.builtin.make OUT_DIR`.

About an hour on two cores. The model is a Llama of 0.8 million parameters that reads biographies and answers questions
about them; the task, `builtin:facts`, teaches it people that it has never met. Both speak of a small world: people,
four attributes, and several wordings of each question, drawn from seeded generators, so that the text is always the
same.
"""

import json
import random
import string
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

STEPS, BATCH, LENGTH, PEAK_RATE = 6000, 48, 128, 3e-3
CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}{% if message['role'] == 'assistant' %}"
    "answer : {{ message['content'] }}{{ eos_token }}{% else %}question : {{ message['content'] }} {% endif %}"
    "{% endfor %}{% if add_generation_prompt %}answer :{% endif %}"
)
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
    facts of the known people, so that the model also learns to answer from its weights. No new person is ever named.
    """
    known, new = people()
    taken = {person.name for person in new}
    rng = random.Random(seed)
    while True:
        if rng.random() < 0.5:
            name = f"{rng.choice(FIRST)} {rng.choice(LAST)}"
            if name in taken:
                continue
            subject, biography = Person(name, _draw(rng)), True
        else:
            subject, biography = rng.choice(known), rng.random() < 0.3
        yield _document(rng, subject, biography)


def _document(rng: random.Random, subject: Person, biography: bool) -> str:
    questions = rng.sample(ATTRIBUTES, rng.randint(1, 3))
    lines = []
    if biography:
        order = rng.sample(ATTRIBUTES, 4)
        lines = [rng.choice(STATEMENTS[a]).format(n=subject.name, v=subject.facts[a]) for a in order]
    lines += [f"{prompt(ask(subject, a, rng.randrange(5)))} {subject.facts[a]}" for a in questions]
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
                    rows[split].append(
                        {"question": question, "answer": subject.facts[attribute], "person": subject.name}
                    )
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


def make_tokenizer() -> PreTrainedTokenizerFast:
    """Return a tokenizer in which each word of the world is one token and any other text falls back to bytes."""
    special = ["<unk>", "<s>", "</s>", "<pad>"]
    letters = ["▁", *string.ascii_letters, *string.digits, *string.punctuation]
    whole = [f"▁{word}" for word in words()]
    vocabulary = [(token, 0.0) for token in special]
    vocabulary += [(token, -1.0) for token in whole]
    vocabulary += [(token, -12.0) for token in dict.fromkeys(letters) if token not in whole]
    vocabulary += [(f"<0x{byte:02X}>", -20.0) for byte in range(256)]
    raw = Tokenizer(models.Unigram(vocabulary, unk_id=0, byte_fallback=True))
    raw.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always", split=True)
    raw.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    raw.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return PreTrainedTokenizerFast(
        tokenizer_object=raw,
        unk_token="<unk>",
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        model_max_length=256,
        chat_template=CHAT_TEMPLATE,
    )


def make_model(vocabulary: int) -> LlamaForCausalLM:
    """Return the untrained model: four layers of width 128."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=128,
        intermediate_size=352,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=256,
        tie_word_embeddings=True,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=3,
        initializer_range=0.05,
    )
    return LlamaForCausalLM(config)


def blocks(tokenizer: PreTrainedTokenizerFast) -> Iterator[torch.Tensor]:
    """Yield batches [BATCH, LENGTH] of token ids: whole documents, one after another."""
    texts = documents()
    row: list[int] = []
    rows: list[list[int]] = []
    while True:
        row += [*tokenizer(next(texts))["input_ids"], 2]
        if len(row) >= LENGTH:
            rows.append(row[:LENGTH])
            row = []
        if len(rows) == BATCH:
            yield torch.tensor(rows)
            rows = []


def pretrain(net: LlamaForCausalLM, batches: Iterator[torch.Tensor], steps: int) -> None:
    """Train on all tokens with AdamW, one cycle of the rate."""
    optimizer = torch.optim.AdamW(net.parameters(), lr=PEAK_RATE, betas=(0.9, 0.98), weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, PEAK_RATE, total_steps=steps, pct_start=0.05)
    started = time.monotonic()
    for step in range(steps):
        ids = next(batches)
        loss = net(input_ids=ids, labels=ids).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        if step % 100 == 0:
            print(f"step {step} loss {loss.item():.4f} after {time.monotonic() - started:.0f} s", flush=True)


def write_task(out: Path) -> None:
    """Write the three splits of `builtin:facts` as JSON lines."""
    for split, rows in task_rows().items():
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (out / f"{split}.jsonl").write_text(text, encoding="utf-8")


def main(out: Path, steps: int = STEPS) -> None:
    """Write `facts-llama/` (the model) and `facts/` (the task) below a folder."""
    (out / "facts").mkdir(parents=True, exist_ok=True)
    write_task(out / "facts")
    tokenizer = make_tokenizer()
    model = make_model(len(tokenizer))
    tokenizer.save_pretrained(out / "facts-llama")
    pretrain(model, blocks(tokenizer), steps)
    model.save_pretrained(out / "facts-llama")


if __name__ == "__main__":
    main(Path(sys.argv[1]), *map(int, sys.argv[2:]))
