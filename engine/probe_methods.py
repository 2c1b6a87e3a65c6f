"""Write `specs/methods.json`: what each of PEFT's methods can do, as the engine's own nodes found on two layers.

A method is offered where it trains (its loss falls), gives the same bytes again and after an interruption, leaves the
base as it was, gives a text the same result in every batch, and computes the same in plain PEFT. Make the table again
after an update of peft with `python -m lorafile.engine.probe_methods specs/methods.json`, or only some of its rows with
their names behind.
"""

import contextlib
import json
import sys
import tempfile
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from lorafile.engine.batching.tokens import Tokens
from lorafile.engine.data.sources import find_model
from lorafile.engine.model.base import Bases
from lorafile.engine.model.methods import IN_CACHE
from lorafile.engine.request import Request, Result, Stopped
from lorafile.engine.run import run
from lorafile.engine.stacking.compatible import training_class
from lorafile.engine.write_snapshot import method_configs
from lorafile.files.jsonl import read_lines
from lorafile.specs.snapshot import declared, snapshot
from lorafile.specs.tables.quantizations import quantization_settings
from lorafile.specs.tables.train import EXECUTION, TrainTable

ESSENTIAL = ("trains", "repeats", "resumes", "alone", "plain_peft")  # what a method is refused without
_MODULES = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
_STEPS, _STOP = 10, 6
_RATE, _LOW_RATE = 1e-2, 2e-3  # at the second, losses on two bases go the same way
_CLOSE = 5e-5  # of a log likelihood: rounding alone
_SAME_LOGITS = 1e-3
_BASES = {"int8": ("int8", "float32"), "nf4": ("nf4", "float32"), "bfloat16": ("none", "bfloat16")}
_FURTHER = 0.03  # of a loss: how far the first one may be from that on a float32 base
_LESS, _NOISE = 0.5, 0.002  # of the falls of the losses, and of a loss: how far what is learned may be from it
_WORDS = ("paris", "london", "rome", "oslo", "lima", "cairo")

Adapter = dict[str, Any]
Files = dict[str, str]


class Refused(Exception):
    """What a method cannot do, in words."""


@dataclass
class Bench:
    """A model of two layers with sixteen questions, and the engine's nodes on it.

    :ivar bases: what the engine has loaded
    """

    root: Path
    bases: Bases = field(default_factory=Bases)
    prepared: Files = field(default_factory=dict)
    count: int = 0

    @property
    def model(self) -> Path:
        """The directory of the model."""
        return self.root / "model"

    def run(
        self, kind: str, settings: dict[str, Any], inputs: dict[str, Files], **options: Any
    ) -> tuple[Result, Files]:
        """Run one node; return its result and its files.

        :param options: `execution`; `checkpoint`, a directory; `report`, which is called with each step
        """
        self.count += 1
        out = self.root / str(self.count)
        out.mkdir()
        paths = {"model": str(self.model), "model_name": "tiny", "data": [str(self.root / "rows.jsonl")]}
        paths |= {"split": "train", "data_name": "rows"}
        paths |= {"checkpoint": str(options["checkpoint"])} if "checkpoint" in options else {}
        request = Request("key", kind, "probe", settings, paths, inputs, {}, options.get("execution", {}))
        done = run(request, out, self.bases, options.get("report", lambda _: None))
        return done, {name: str(out / name) for name in done.files}

    def sections(self, base: str = "") -> dict[str, Any]:
        """Return the sections of a base: float32, or one of `_BASES`."""
        quantization, dtype = _BASES.get(base, ("none", "float32"))
        model = {"dtype": dtype, "trust_remote_code": False}
        return {"model": model, "quantization": quantization_settings(quantization)}

    def train(self, adapter: Adapter, base: str = "", **options: Any) -> tuple[list[float], Files]:
        """Train for a few steps on all questions; return the loss of each step, and the files."""
        done, files = self.run("train", self.training(adapter, base, **options), {"train": self.prepared}, **options)
        if done.outcome != "done":
            raise Refused(_sentence(done.message))
        return [row["loss"] for row in read_lines(files["curve.jsonl.gz"])], files

    def training(self, adapter: Adapter, base: str = "", **options: Any) -> dict[str, Any]:
        """Return the sections of a `train` node."""
        given = {"max_steps": _STEPS, "learning_rate": options.get("rate", _RATE), "per_device_train_batch_size": 16}
        given |= {"gradient_checkpointing": options.get("gradient_checkpointing", False)}
        training = TrainTable(**given).model_dump(exclude=set(EXECUTION))
        return {**self.sections(base), "adapter": adapter, "training": training, "seed": 1}

    def predict(self, files: Files, size: int, output: str = "likelihood") -> list[Any]:
        """Return the log likelihood of each answer, or an answer of the model's own."""
        task = {"output": output, "max_new_tokens": 3}
        execution = {"per_device_eval_batch_size": size}
        inputs = {"data": self.prepared, "adapter": files}
        done, made = self.run("predict", {**self.sections(), "task": task}, inputs, execution=execution)
        if done.outcome != "done":
            raise Refused(_sentence(done.message))
        word = "log_likelihood" if output == "likelihood" else "answer"
        return [row[word] for row in read_lines(made["predictions.jsonl.gz"])]


@contextlib.contextmanager
def bench() -> Iterator[Bench]:
    """Yield a bench in a directory of its own."""
    with tempfile.TemporaryDirectory(prefix="lorafile-") as directory:
        made = Bench(Path(directory))
        _save_model(made.model)
        rows = [
            {"prompt": f"where does anna number {n} live ?", "completion": " " + " ".join(_WORDS[: 1 + n % 4])}
            for n in range(16)
        ]
        (made.root / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        data: dict[str, Any] = {
            "format": "completion",
            "template": None,
            "columns": {},
            "max_length": 32,
            "too_long": "error",
        }
        data |= {"completion_only_loss": True, "rows": {"seed": None, "start": 0, "stop": 16}}
        _, made.prepared = made.run("prepare", {"data": data}, {})
        yield made


def _save_model(where: Path) -> None:
    """Write a random Llama of two layers, with wide weights: what goes wrong with them shows in its losses."""
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    tokenizer = AutoTokenizer.from_pretrained(find_model("builtin:facts-llama", None, Path()))
    tokenizer.chat_template = None
    sizes: dict[str, Any] = {
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
    }
    sizes |= {"pad_token_id": 3, "bos_token_id": 1, "eos_token_id": 2, "vocab_size": len(tokenizer)}
    sizes |= {"num_key_value_heads": 2, "max_position_embeddings": 128, "initializer_range": 0.08}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        LlamaForCausalLM(LlamaConfig(**sizes)).save_pretrained(where)
    tokenizer.save_pretrained(where)


def trial(name: str) -> Adapter:
    """Return the settings with which a method is tried: a small rank, every linear layer, and its own `trial`."""
    rows, lines = snapshot()[method_configs()[name]], declared().get(name, {})
    skipped = (lines.get("alpha"), "adapter_layers")
    settings = {key: value for key, value in lines.get("defaults", {}).items() if key in rows and key not in skipped}
    settings |= {"target_modules": _MODULES} if "target_modules" in rows and name != "trainable_tokens" else {}
    settings |= {"r": 4} if rows.get("r", {}).get("default") and "r" not in lines.get("refused", {}) else {}
    settings |= {"num_virtual_tokens": 5} if "num_virtual_tokens" in rows else {}
    settings |= lines.get("trial", {})
    if name == "adaption_prompt":
        del settings["target_modules"]  # it is the model's own attention
    return {"method": name, **settings}


def probe(name: str, on: Bench) -> dict[str, Any]:
    """Return a method's row: what it takes, and for each thing that it can do true, or why it cannot."""
    rows = snapshot()[method_configs()[name]]
    row: dict[str, Any] = {"config": method_configs()[name], "virtual": _virtual(name)}
    row |= {"modules": "target_modules" in rows and not row["virtual"], "layers": "layers_to_transform" in rows}
    adapter = trial(name)
    losses: list[float] = []
    files: Files = {}
    with _reason(row, "trains"):
        losses, files = on.train(adapter)
        if not losses[-1] < losses[0]:
            raise Refused(f"its loss does not fall: {losses[0]:.4f}, and {losses[-1]:.4f} after {_STEPS} steps")
    if not files:
        return row | {"refused": row["trains"]}
    for word, attempt in _OTHERS.items():
        with _reason(row, word):
            attempt(on, adapter, files, losses)
    expected = on.train(adapter, rate=_LOW_RATE)[0]
    for base in _BASES:
        with _reason(row, base):
            _near(expected, on.train(adapter, base, rate=_LOW_RATE)[0])
    row["together"] = bool(training_class(on.training(adapter), ""))
    return row | {"refused": next((row[word] for word in ESSENTIAL if row[word] is not True), "")}


def _virtual(name: str) -> str:
    from peft import PEFT_TYPE_TO_CONFIG_MAPPING, PeftType
    from peft.config import PromptLearningConfig

    if not issubclass(PEFT_TYPE_TO_CONFIG_MAPPING[PeftType(name.upper())], PromptLearningConfig):
        return ""
    return "cache" if name.upper() in IN_CACHE else "embeddings"


@contextlib.contextmanager
def _reason(row: dict[str, Any], word: str) -> Iterator[None]:
    """Note that something works, or why it does not."""
    row[word] = True
    try:
        yield
    except Refused as reason:
        row[word] = str(reason)


def _repeats(on: Bench, adapter: Adapter, files: Files, _: list[float]) -> None:
    if _bytes(on.train(adapter)[1]) != _bytes(files):
        raise Refused("two runs with one seed give other bytes")


def _resumes(on: Bench, adapter: Adapter, files: Files, _: list[float]) -> None:
    """Stop a run, start it again, and compare with the one that was left alone."""

    def stop(progress: dict[str, Any]) -> None:
        if progress.get("step") == _STOP:
            raise Stopped

    directory = on.root / f"running-{on.count}"
    settings, inputs = on.training(adapter), {"train": on.prepared}
    stopped, _files = on.run("train", settings, inputs, checkpoint=directory, report=stop)
    rest, found = on.run("train", settings, inputs, checkpoint=directory)
    if stopped.outcome != "interrupted" or rest.outcome != "done" or rest.figures.get("resumed_from") != [_STOP]:
        raise Refused(_sentence(rest.message or stopped.message or "it does not resume"))
    if _bytes(found) != _bytes(files):
        raise Refused("a run that was interrupted ends with other bytes")


def _plain_peft(on: Bench, _: Adapter, files: Files, __: list[float]) -> None:
    """Compare each text's likelihood with what plain PEFT computes on a plain base."""
    ours, theirs = on.predict(files, 4), _plain(on, files)
    far = max(abs(one - other) for one, other in zip(ours, theirs, strict=True))
    if far > _CLOSE:
        raise Refused(f"plain PEFT computes log likelihoods that differ by {far:.2g}")


def _plain(on: Bench, files: Files) -> list[float]:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    base = AutoModelForCausalLM.from_pretrained(on.model)
    model: Any = PeftModel.from_pretrained(base, str(Path(files["adapter_model.safetensors"]).parent)).eval()
    tokens = Tokens.load(on.prepared["tokens.safetensors"])
    sums = []
    for index in range(len(tokens)):
        ids, marks = tokens.example(index)
        with torch.no_grad():
            logits = model(input_ids=ids[None], attention_mask=torch.ones_like(ids)[None]).logits[0]
        logs = logits[-len(ids) :].log_softmax(-1)  # virtual tokens stand before the text's own
        places = marks[1:].nonzero().flatten()
        sums.append(float(logs[places, ids[places + 1]].sum()))
    return sums


def _alone(on: Bench, _: Adapter, files: Files, __: list[float]) -> None:
    """Compare texts in a batch with texts alone: likelihoods, and answers."""
    pairs = zip(on.predict(files, 16), on.predict(files, 1), strict=True)
    far = max(abs(one - other) for one, other in pairs)
    if far > _CLOSE:
        raise Refused(f"a text's log likelihood depends on the others in its batch, here by {far:.2g}")
    if on.predict(files, 16, "generation") != on.predict(files, 1, "generation"):
        raise Refused("an answer depends on the other prompts in its batch")


def _merges(on: Bench, _: Adapter, files: Files, __: list[float]) -> None:
    settings = {**on.sections(), "merging": {"dtype": "float32", "examples": 16}}
    done, _files = on.run("merge", settings, {"data": on.prepared, "adapter": files})
    if done.outcome != "done":
        raise Refused(_sentence(done.message))
    far = done.figures["max_logit_difference"]
    if not far < _SAME_LOGITS:
        raise Refused(f"the weights that PEFT merges give logits that differ by {far:.2g}")


def _checkpointing(on: Bench, adapter: Adapter, _: Files, losses: list[float]) -> None:
    again, _files = on.train(adapter, gradient_checkpointing=True)
    if max(abs(one - other) for one, other in zip(losses, again, strict=True)) > _SAME_LOGITS:
        raise Refused("with gradient checkpointing its losses are others")


_OTHERS = {
    "repeats": _repeats,
    "resumes": _resumes,
    "plain_peft": _plain_peft,
    "alone": _alone,
    "merges": _merges,
    "checkpointing": _checkpointing,
}


def _near(expected: list[float], losses: list[float]) -> None:
    """Refuse losses that do not begin and fall as those on a float32 base: packed weights were taken for plain ones."""
    if abs(losses[0] - expected[0]) > _FURTHER * expected[0]:
        raise Refused(f"its first loss is {losses[0]:.3f}, and {expected[0]:.3f} on a float32 base")
    ours, theirs = (sum(each[0] - loss for loss in each) for each in (losses, expected))
    if abs(ours - theirs) > _LESS * abs(theirs) + _NOISE * expected[0] * len(losses):
        raise Refused(
            f"its loss falls by {ours / len(losses):.3f}, and by {theirs / len(losses):.3f} on a float32 base"
        )


def _bytes(files: Files) -> bytes:
    return Path(files["adapter_model.safetensors"]).read_bytes()


def _sentence(message: str) -> str:
    """Return a message in one line, without paths of this machine."""
    line = " ".join(message.split()).replace(tempfile.gettempdir(), "")
    return line if len(line) <= 240 else line[:239] + "…"


def probed(names: list[str]) -> dict[str, dict[str, Any]]:
    """Return the rows of some methods."""
    rows = {}
    with bench() as on, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PEFT's own, about what is tried here on purpose
        for name in names:
            rows[name] = probe(name, on)
            print(f"{name}: {rows[name]['refused'] or 'offered'}", file=sys.stderr)
    return rows


def main() -> None:
    """Write all rows, or make some of them again."""
    file, names = Path(sys.argv[1]), sys.argv[2:]
    made = probed(names or list(method_configs()))
    kept = json.loads(file.read_text(encoding="utf-8"))["methods"] if names else {}
    rows = {name: row for name in method_configs() if (row := made.get(name) or kept.get(name))}
    versions = {name: version(name) for name in ("peft", "transformers", "torch", "bitsandbytes")}
    file.write_text(json.dumps({"versions": versions, "methods": rows}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
