"""axolotl, on exactly the tokens that Lorafile prepared: its YAML is written from the request, and its command run."""

import json
import subprocess
import sys
from pathlib import Path

import yaml
from lora_trainer import CURVE, OUTPUT, REQUEST, ROOT, STOP, rows

adapter, training, checkpoint = REQUEST["adapter"], REQUEST["training"], Path(REQUEST["checkpoint"])
if REQUEST["model"]["quantization"] or adapter["method"] != "lora":
    sys.exit("This program trains LoRA on an unquantized base only.")
tokens = ROOT / "tmp" / "tokens.jsonl"
with tokens.open("w") as stream:
    for row in rows("train"):
        ids, marks = row["input_ids"], row["completion_mask"]
        labels = [token if mark else -100 for token, mark in zip(ids, marks, strict=True)]
        stream.write(json.dumps({"input_ids": ids, "attention_mask": [1] * len(ids), "labels": labels}) + "\n")
same = ("learning_rate", "gradient_accumulation_steps", "weight_decay", "max_grad_norm", "bf16", "fp16", "max_steps")
warmup = training["warmup_steps"]
config = {
    **{name: training[name] for name in (*same, "gradient_checkpointing", "adam_beta1", "adam_beta2", "adam_epsilon")},
    **{"base_model": REQUEST["model"]["path"], "adapter": "lora", "seed": REQUEST["seed"]},
    "optimizer": training.get("optim", "adamw_torch"),
    **{"lora_r": adapter["r"], "lora_alpha": adapter["lora_alpha"], "lora_dropout": adapter["lora_dropout"]},
    **{"lora_target_modules": adapter["target_modules"], "peft_use_rslora": adapter.get("use_rslora", False)},
    **{"peft_use_dora": adapter.get("use_dora", False), "lr_scheduler": training["lr_scheduler_type"]},
    **{"micro_batch_size": training["per_device_train_batch_size"], "num_epochs": training["num_train_epochs"]},
    **({"warmup_ratio": warmup} if warmup < 1 else {"warmup_steps": int(warmup)}),
    "datasets": [{"path": str(tokens), "ds_type": "json", "type": None}],
    "dataset_prepared_path": str(ROOT / "tmp" / "prepared"),
    **{"val_set_size": 0, "sample_packing": False, "pad_to_sequence_len": False, "logging_steps": 1},
    "sequence_len": max(len(row["input_ids"]) for row in rows("train")),
    **{"output_dir": str(checkpoint), "saves_per_epoch": 1, **REQUEST["options"]},
}
file = ROOT / "tmp" / "axolotl.yaml"
file.write_text(yaml.safe_dump(config))
code = subprocess.call([sys.executable, "-m", "axolotl.cli.train", str(file)])  # noqa: S603  (SIGTERM reaches it, too)
if STOP or code:
    sys.exit(75 if STOP else code)
last = max(checkpoint.glob("checkpoint-*"), key=lambda place: int(place.name.partition("-")[2]))
state = json.loads((last / "trainer_state.json").read_text())
names = ("step", "loss", "learning_rate", "grad_norm", "epoch")
curve = [{n: row[n] for n in names if n in row} for row in state["log_history"] if "loss" in row]
CURVE.write_text("".join(json.dumps(row | {"steps": state["max_steps"]}) + "\n" for row in curve))
(OUTPUT / "adapter").mkdir(exist_ok=True)
for name in ("adapter_config.json", "adapter_model.safetensors"):
    (OUTPUT / "adapter" / name).write_bytes((checkpoint / name).read_bytes())
(OUTPUT / "result.json").write_text(json.dumps({"outcome": "done"}))
