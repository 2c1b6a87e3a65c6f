"""Are both sides of the `study` benchmark the same training? From one start, over the same batches, step for step.

`python study_losses.py ours FOLDER` writes a start adapter, the order of the batches, the loss of the bare base and
of each of the first steps; `python study_losses.py peer FOLDER`, run by the peer's Python, computes them with TRL.
"""

import json
import sys
from pathlib import Path
from typing import Any

STEPS = 10
NAME = "r16"


def ours(out: Path) -> dict[str, Any]:
    """Return what the engine computes; leave the start and the order for the peer."""
    from dataclasses import replace

    from lorafile.apply.work_groups import Group, RequestBuilder
    from lorafile.engine.batching.batches import collate
    from lorafile.engine.batching.tokens import Tokens
    from lorafile.engine.model.adapters import new_adapter
    from lorafile.engine.model.base import load_base
    from lorafile.engine.model.loss import likelihoods
    from lorafile.engine.nodes.train import Stepper, step_batches, total_steps
    from lorafile.engine.run import run
    from lorafile.engine.training.curve import Curve
    from lorafile.state import State
    from lorafile.study.study import Study

    study = Study.load(out / "study.toml", out / "losses-state")
    graph = study.plan().graph
    places = RequestBuilder(graph, State.read(study.state))
    files = {}
    for node in graph.nodes.values():
        if node.kind == "prepare":
            request = places.requests(Group((node.key,), "", 0), {})[0]
            run(request, out / node.split, None, lambda _: None)  # type: ignore[arg-type]
            files[node.split] = Tokens.load(out / node.split / "tokens.safetensors")
    node = next(node for node in graph.nodes.values() if node.address == f"eight/{NAME}/seed=1:train")
    request = replace(places.request(node, {}, set(node.inputs.values())), inputs={}, awaits={})
    settings = request.settings["training"]
    base = load_base(request.settings, request.paths)
    test, train = files["test"], files["train"]
    found = likelihoods(base.model.eval(), collate(test, list(range(len(test))), 0, base.device))
    untuned = -sum(one["log_likelihood"] for one in found) / sum(one["tokens"] for one in found)
    steps = total_steps(len(train), settings)
    with new_adapter(base, request, train, steps) as model:
        model.save_pretrained(out / "start", save_embedding_layers=False)
        stepper, curve = Stepper(base, model.train(), settings, steps), Curve()
        groups = step_batches(train, settings, request.settings["seed"])
        order = [next(groups)[1] for _ in range(steps)]
        losses = [stepper.step(train, group, curve)[0] for group in order[:STEPS]]
    rows = [index for group in order for batch in group for index in batch]
    (out / "order.json").write_text(json.dumps(rows), encoding="utf-8")
    return {"untuned": untuned, "steps": losses}


def peer(out: Path) -> dict[str, Any]:
    """Return what TRL computes from the same start over the same batches."""
    from datasets import load_dataset
    from peer_trl import arguments
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
    from trl import SFTTrainer

    class First(TrainerCallback):
        def on_step_end(self, _arguments: Any, state: Any, control: Any, **_: Any) -> None:
            control.should_training_stop = state.global_step >= STEPS

    class InOrder(SFTTrainer):
        def _get_train_sampler(self, *_: Any) -> Any:
            return json.loads((out / "order.json").read_text(encoding="utf-8"))

    task = json.loads((out / "task.json").read_text(encoding="utf-8"))
    data = load_dataset("json", data_files={split: f"{task['data']}/{split}.jsonl" for split in ("train", "test")})
    base = AutoModelForCausalLM.from_pretrained(task["model"], dtype=task["dtype"])
    settings = arguments(task, str(out / "losses-peer"))
    settings.logging_steps, settings.per_device_eval_batch_size = 1, len(data["test"])
    trainer = InOrder(
        model=PeftModel.from_pretrained(base, out / "start", is_trainable=True),
        args=settings,
        train_dataset=data["train"],
        eval_dataset=data["test"],
        processing_class=AutoTokenizer.from_pretrained(task["model"]),
        callbacks=[First()],
    )
    untuned = trainer.evaluate()["eval_loss"]
    trainer.train()
    return {"untuned": untuned, "steps": [row["loss"] for row in trainer.state.log_history if "loss" in row]}


if __name__ == "__main__":
    side, folder = sys.argv[1], Path(sys.argv[2])
    made = {"ours": ours, "peer": peer}[side](folder)
    (folder / f"losses-{side}.json").write_text(json.dumps(made), encoding="utf-8")
