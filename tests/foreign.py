"""Checkpoints that somebody else trained: plain PEFT and transformers' own Trainer, without any of our code."""

import json
import warnings
from pathlib import Path
from typing import Any


def train_adapter(model: Path, rows: Path, out: Path, card: bool = True, **changes: Any) -> Path:
    """Train a LoRA adapter with transformers.Trainer on the first rows of a file, and save what Trainer saves."""
    with warnings.catch_warnings():  # of peft about transformers, in code that is not ours
        warnings.simplefilter("ignore")
        return _train(model, rows, out, card, changes)


def _train(model: Path, rows: Path, out: Path, card: bool, changes: dict[str, Any]) -> Path:
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM, AutoTokenizer, Trainer, TrainingArguments

    tokenizer = AutoTokenizer.from_pretrained(model)
    lora = {"r": 4, "lora_alpha": 8, "target_modules": ["q_proj", "v_proj"], **changes.pop("lora", {})}
    torch.manual_seed(7)
    tuned = get_peft_model(AutoModelForCausalLM.from_pretrained(model), LoraConfig(task_type="CAUSAL_LM", **lora))
    lines = [json.loads(line) for line in rows.read_text(encoding="utf-8").splitlines()[:16]]
    examples = [tokenizer(row["prompt"] + row["completion"])["input_ids"] for row in lines]

    def collate(batch: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        longest = max(len(row["input_ids"]) for row in batch)
        ids = torch.tensor([row["input_ids"] + [3] * (longest - len(row["input_ids"])) for row in batch])
        return {"input_ids": ids, "attention_mask": (ids != 3).long(), "labels": ids.masked_fill(ids == 3, -100)}

    settings: dict[str, Any] = {
        "max_steps": 6,
        "learning_rate": 1e-2,
        "per_device_train_batch_size": 8,
        "logging_steps": 1,
        "seed": 1,
        "lr_scheduler_type": "linear",
        "weight_decay": 0.0,
        **changes,
    }
    arguments = TrainingArguments(str(out), report_to=[], use_cpu=True, disable_tqdm=True, **settings)
    data: Any = [{"input_ids": ids} for ids in examples]
    trainer = Trainer(tuned, arguments, train_dataset=data, data_collator=collate)
    trainer.train()
    trainer.save_model()
    trainer.save_state()
    if card:
        trainer.create_model_card()
    return out
