"""What every program here shares: the request, the curve, a stop on SIGTERM, and the result. See docs/trainers.md."""

import json
import os
import signal
import sys
from pathlib import Path

import torch
import transformers
from peft import get_peft_config
from transformers import AutoModelForCausalLM, TrainerCallback
from transformers.quantizers import AutoQuantizationConfig

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


def _end(kind, error, trace):
    """End with the exit code that says out of memory, where that is the error."""
    sys.__excepthook__(kind, error, trace)
    if issubclass(kind, (torch.OutOfMemoryError, MemoryError)):
        os._exit(76)


sys.excepthook = _end


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
    before_5 = int(transformers.__version__.partition(".")[0]) < 5  # a share has a name of its own there
    if 0 < shared["warmup_steps"] < 1 and before_5:
        shared["warmup_ratio"] = shared.pop("warmup_steps")
    save = {"save_strategy": "steps", "save_steps": every} if every else {"save_strategy": "no"}
    seeds = {"seed": REQUEST["seed"], "data_seed": REQUEST["seed"]}
    here = {"output_dir": REQUEST["checkpoint"], "use_cpu": not torch.cuda.is_available()}
    return shared | seeds | save | here | {"logging_steps": 1, "report_to": "none"}


def base_model():
    """Return the request's base, quantized as it says."""
    model = REQUEST["model"]
    how = (
        {"quantization_config": AutoQuantizationConfig.from_dict(model["quantization"])}
        if model["quantization"]
        else {}
    )
    return AutoModelForCausalLM.from_pretrained(model["path"], dtype=model["dtype"], **how)


def adapter_config():
    """Return the request's adapter as PEFT's config of its method."""
    settings = dict(REQUEST["adapter"])
    return get_peft_config({"peft_type": settings.pop("method").upper(), "task_type": "CAUSAL_LM", **settings})


def finish(trainer, figures=None):
    """Leave the adapter and the result; the result is written last, by rename."""
    if STOP and trainer.state.global_step < trainer.state.max_steps:
        sys.exit(75)
    trainer.model.save_pretrained(OUTPUT / "adapter")
    part = OUTPUT / "result.part"
    part.write_text(json.dumps({"outcome": "done", "figures": figures or {}}))
    part.rename(OUTPUT / "result.json")
