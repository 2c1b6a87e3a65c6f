"""How far merging a LoRA moves logits in half precision, over how far another batch moves them.

    python benchmarks/merging.py                                   # random Llamas that learned one sequence
    python benchmarks/merging.py --model DIRECTORY --text FILE     # a checkpoint on a text

Every row is one merge: as it is, and with a lora_alpha that is wrong by 5 and by 10 %.
"""

import argparse
import copy
import random
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

_STEPS, _RATE, _TOGETHER = 20, 3e-3, 8
_SHAPES = ((64, 2), (64, 24), (256, 12))  # hidden size, layers
_SCALES = (1.0, 1.05, 1.1, 0.9)
Texts = list[torch.Tensor]


def texts(ids: list[int], count: int, seed: int) -> Texts:
    """Return pieces of some tokens, of 20 to 120 each, the longest first."""
    draw = random.Random(seed)
    starts = [(draw.randrange(len(ids) - 120), draw.randrange(20, 120)) for _ in range(count)]
    return sorted((torch.tensor(ids[at : at + size]) for at, size in starts), key=len, reverse=True)


def padded(rows: Texts) -> dict[str, torch.Tensor]:
    """Return some texts as a batch, padded on the right."""
    ids = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
    mask = torch.nn.utils.rnn.pad_sequence([torch.ones_like(row) for row in rows], batch_first=True)
    return {"input_ids": ids, "attention_mask": mask}


def trained(base: Any, ids: list[int]) -> Any:
    """Return a base with a LoRA that was trained for a few steps."""
    model = get_peft_model(base, LoraConfig(r=8, lora_alpha=16, target_modules="all-linear"))
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=_RATE, weight_decay=0)
    for step in range(_STEPS):
        batch = padded(texts(ids, 16, 1000 + step))
        labels = batch["input_ids"].masked_fill(batch["attention_mask"] == 0, -100)
        model(**batch, labels=labels).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return model.eval()


@torch.inference_mode()
def logits(model: Any, held: Texts, together: int) -> torch.Tensor:
    """Return the logits [s, v] of some texts, so many in a batch."""
    every = []
    for at in range(0, len(held), together):
        rows = held[at : at + together]
        out = model(**padded(rows), use_cache=False).logits
        every += [out[number, : len(row)].double() for number, row in enumerate(rows)]
    return torch.cat(every)


def merged(model: Any, scale: float, dtype: torch.dtype) -> Any:
    """Return the model merged in float32 and rounded once, as a `merge` node does it."""
    model = copy.deepcopy(model)
    for layer in (layer for layer in model.modules() if hasattr(layer, "scale_layer")):
        layer.scale_layer(scale)
        inner = layer.get_base_layer().float()
        layer.merge()
        inner.to(dtype)
    return model.merge_and_unload().to(dtype)


def measure(name: str, base: Any, ids: list[int]) -> None:
    """Print a row for each type that the model is merged in."""
    model, held = trained(base, ids), texts(ids, 32, 7)
    attached = logits(model, held, _TOGETHER)
    moved = (attached - logits(model, held, 1)).abs()
    touched = (moved > 0).any(-1)
    rounding = float(moved[touched].mean())
    for dtype in dict.fromkeys((base.dtype, torch.float32)):
        differences = [(attached - logits(merged(model, s, dtype), held, _TOGETHER)).abs().mean() for s in _SCALES]
        ratios = "  ".join(f"{s:g}: {float(d) / rounding:5.2f}" for s, d in zip(_SCALES, differences, strict=True))
        types = f"{str(base.dtype)[6:]} in {str(dtype)[6:]}"
        print(f"{name:14}  {types:20}  {int(touched.sum()):4} of {len(touched)} tokens moved  {ratios}")


def main() -> None:
    """Measure what the arguments name."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path)
    parser.add_argument("--text", type=Path)
    options = parser.parse_args()
    for dtype in (torch.bfloat16, torch.float16):
        torch.manual_seed(0)
        if options.model:
            ids = AutoTokenizer.from_pretrained(options.model)(options.text.read_text(encoding="utf-8")[:200_000])
            base = AutoModelForCausalLM.from_pretrained(options.model, dtype=dtype)
            measure(options.model.name, base, ids.input_ids)
            continue
        for hidden, layers in _SHAPES:
            shape = {"hidden_size": hidden, "intermediate_size": 2 * hidden, "num_hidden_layers": layers}
            config = LlamaConfig(vocab_size=512, num_attention_heads=4, num_key_value_heads=4, **shape)
            ids = random.Random(1).choices(range(512), k=64) * 100
            measure(f"{layers} x {hidden}", LlamaForCausalLM(config).to(dtype), ids)


if __name__ == "__main__":
    main()
