"""What every program here shares: the request, the curve, a stop on SIGTERM, and the result. See docs/trainers.md."""

import json
import os
import signal
import sys
from pathlib import Path

from peft import LoraConfig
from transformers import TrainerCallback

ROOT = Path(os.environ["LORA_REQUEST"]).parent
REQUEST = json.loads(Path(os.environ["LORA_REQUEST"]).read_text())
OUTPUT, CURVE = ROOT / REQUEST["output"], Path(REQUEST["curve"])
STOP = []
signal.signal(signal.SIGTERM, lambda *_: STOP.append(True))
_SHARED = (  # settings that transformers has under the same name
    *("num_train_epochs", "max_steps", "per_device_train_batch_size", "gradient_accumulation_steps", "learning_rate"),
    *("lr_scheduler_type", "warmup_steps", "weight_decay", "adam_beta1", "adam_beta2", "adam_epsilon", "max_grad_norm"),
    *("bf16", "fp16", "gradient_checkpointing", "optim", "lr_scheduler_kwargs"),
)


class Recorder(TrainerCallback):
    """Writes the curve, and stops with a checkpoint when it is asked to."""

    def on_log(self, _args, state, _control, logs=None, **_):
        """Append a step to the curve."""
        if logs and "loss" in logs:
            row = {"step": state.global_step, "steps": state.max_steps, "epoch": logs.get("epoch", 0)}
            row |= {name: logs[name] for name in ("loss", "learning_rate", "grad_norm") if name in logs}
            with CURVE.open("a") as stream:
                stream.write(json.dumps(row) + "\n")

    def on_step_end(self, _args, _state, control, **_):
        """Stop at a step, and not in the middle of one."""
        if STOP:
            control.should_save = control.should_training_stop = True


def rows(name):
    """Return the rows of one of the request's data files."""
    return [json.loads(line) for line in (ROOT / REQUEST["data"][name]).open()]


def arguments():
    """Return the request's settings as arguments of a transformers Trainer."""
    training, every = REQUEST["training"], REQUEST["execution"]["save_steps"]
    shared = {name: training[name] for name in _SHARED if name in training}
    save = {"save_strategy": "steps", "save_steps": every} if every else {"save_strategy": "no"}
    seeds = {"seed": REQUEST["seed"], "data_seed": REQUEST["seed"]}
    return shared | seeds | save | {"output_dir": REQUEST["checkpoint"], "logging_steps": 1, "report_to": "none"}


def lora_config():
    """Return the request's adapter."""
    return LoraConfig(**{k: v for k, v in REQUEST["adapter"].items() if k != "method"}, task_type="CAUSAL_LM")


def finish(trainer, figures=None):
    """Leave the adapter and the result; the result is written last, by rename."""
    if STOP and trainer.state.global_step < trainer.state.max_steps:
        sys.exit(75)
    trainer.model.save_pretrained(OUTPUT / "adapter")
    part = OUTPUT / "result.part"
    part.write_text(json.dumps({"outcome": "done", "figures": figures or {}}))
    part.rename(OUTPUT / "result.json")
