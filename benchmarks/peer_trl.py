"""The study as it is trained today: TRL's SFTTrainer and PEFT, one configuration after another.

`python peer_trl.py TASK OUT NAME...` trains the named configurations of a task (see study_inputs.py) in this process,
evaluates each once, saves its adapter, and leaves `OUT/NAME.json` with its loss and the seconds that each part took.
"""

import json
import sys
import time
from pathlib import Path

CLOCK = [time.time()]


def lap() -> float:
    """Return the seconds since it was last asked."""
    CLOCK.append(time.time())
    return CLOCK[-1] - CLOCK[-2]


import torch  # noqa: E402
from datasets import load_dataset  # noqa: E402
from peft import LoraConfig  # noqa: E402
from transformers import AutoModelForCausalLM, AutoTokenizer  # noqa: E402
from trl import SFTConfig, SFTTrainer  # noqa: E402


def arguments(task: dict, out: str) -> SFTConfig:
    """Return the settings that both sides share, and nothing done that the study does not ask for."""
    return SFTConfig(
        output_dir=out,
        num_train_epochs=1,
        per_device_train_batch_size=task["batch"],
        per_device_eval_batch_size=16,
        learning_rate=task["learning_rate"],
        lr_scheduler_type="linear",
        max_grad_norm=1.0,
        max_length=task["max_length"],
        completion_only_loss=True,
        gradient_checkpointing=False,
        bf16=False,  # no autocast: the weights are in the type that the task names, adapters in float32
        use_cpu=not torch.cuda.is_available(),
        save_strategy="no",
        eval_strategy="no",
        report_to="none",
        disable_tqdm=True,
        seed=1,
    )


def trainer_of(task: dict, name: str, out: str) -> tuple[SFTTrainer, dict[str, float]]:
    """Return the trainer of one configuration, and what loading and preparing took."""
    seconds = {}
    model = AutoModelForCausalLM.from_pretrained(task["model"], dtype=task["dtype"])
    tokenizer = AutoTokenizer.from_pretrained(task["model"])
    seconds["load"] = lap()
    data = load_dataset("json", data_files={split: f"{task['data']}/{split}.jsonl" for split in ("train", "test")})
    rank, modules = task["configurations"][name]
    trainer = SFTTrainer(
        model=model,
        args=arguments(task, f"{out}/{name}"),
        train_dataset=data["train"],
        eval_dataset=data["test"],
        processing_class=tokenizer,
        peft_config=LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=modules, task_type="CAUSAL_LM"),
    )
    seconds["prepare"] = lap()
    return trainer, seconds


def main() -> None:
    file, out, *names = sys.argv[1:]
    task = json.loads(Path(file).read_text(encoding="utf-8"))
    startup = lap()
    for name in names:
        trainer, seconds = trainer_of(task, name, out)
        seconds = {"startup": startup, **seconds}
        startup = 0.0
        steps = trainer.train().global_step
        seconds["train"] = lap()
        loss = trainer.evaluate()["eval_loss"]
        seconds["evaluate"] = lap()
        trainer.save_model()
        seconds["save"] = lap()
        found = {"eval_loss": loss, "steps": steps, "seconds": seconds, "threads": torch.get_num_threads()}
        Path(out, f"{name}.json").write_text(json.dumps({**found, "ended": time.time()}), encoding="utf-8")


if __name__ == "__main__":
    main()
