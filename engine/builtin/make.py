"""Make the built-in model, its tokenizer and its task again: `python -m lorafile.engine.builtin.make OUT_DIR`.

About an hour on two cores. The model is a Llama of 0.8 million parameters that reads biographies and answers
questions about them; the task teaches it people that it has never met.
"""

import json
import string
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from lorafile.engine.builtin import world

STEPS, BATCH, LENGTH, PEAK_RATE = 6000, 48, 128, 3e-3
CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}{% if message['role'] == 'assistant' %}"
    "answer : {{ message['content'] }}{{ eos_token }}{% else %}question : {{ message['content'] }} {% endif %}"
    "{% endfor %}{% if add_generation_prompt %}answer :{% endif %}"
)


def tokenizer() -> PreTrainedTokenizerFast:
    """Return a tokenizer in which each word of the world is one token and any other text falls back to bytes."""
    special = ["<unk>", "<s>", "</s>", "<pad>"]
    letters = ["▁", *string.ascii_letters, *string.digits, *string.punctuation]
    whole = [f"▁{word}" for word in world.words()]
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


def model(vocabulary: int) -> LlamaForCausalLM:
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
    stream = world.documents()
    row: list[int] = []
    rows: list[list[int]] = []
    while True:
        row += [*tokenizer(next(stream))["input_ids"], 2]
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
    for split, rows in world.task_rows().items():
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (out / f"{split}.jsonl").write_text(text, encoding="utf-8")


def main(out: Path, steps: int = STEPS) -> None:
    """Write `facts-llama/` (the model) and `facts/` (the task) below a folder."""
    (out / "facts").mkdir(parents=True, exist_ok=True)
    write_task(out / "facts")
    words = tokenizer()
    net = model(len(words))
    words.save_pretrained(out / "facts-llama")
    pretrain(net, blocks(words), steps)
    net.save_pretrained(out / "facts-llama")


if __name__ == "__main__":
    main(Path(sys.argv[1]), *map(int, sys.argv[2:]))
