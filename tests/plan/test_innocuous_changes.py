"""What cannot change a result plans no training: one trained study, and many small changes to its files."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from checkpoint_fixture import make_checkpoint

from lorafile import Study
from lorafile.graph.build import build
from lorafile.plan.decide import decide, new_plan
from lorafile.plan.plan import Plan
from lorafile.state import State
from lorafile.state.transfer.exporter import export_bundle
from lorafile.state.transfer.importer import import_state

SPEC = """
[study]
name = "tiny"
seeds = [1]
[model]
path = "model"
[data]
path = "rows.jsonl"
format = "completion"
max_length = 32
split = { train = 16, validation = 6, test = 6 }
[lora]
r = 4
lora_alpha = 8
[train]
max_steps = 2
learning_rate = 1e-2
lr_scheduler_type = "constant"
[evaluate]
metrics = ["log_loss", "exact_match"]
max_new_tokens = 3
[profile]
enabled = false
"""
WORDS = ["paris", "rome", "oslo", "lima", "cairo"]
Change = Callable[[Path], Any]


def rows() -> list[dict[str, str]]:
    return [
        {"prompt": f"where does anna {n % 10} live ?", "completion": " " + " ".join(WORDS[: 1 + n % 4])}
        for n in range(40)
    ]


def write_rows(directory: Path, changed: list[dict[str, str]], end: str = "\n") -> None:
    (directory / "rows.jsonl").write_bytes("".join(json.dumps(row) + end for row in changed).encode())


def in_spec(old: str, new: str) -> Change:
    def change(directory: Path) -> None:
        file = directory / "study.toml"
        text = file.read_text(encoding="utf-8")
        assert old in text
        file.write_text(text.replace(old, f"{old}\n{new}" if old.startswith("[") else new), encoding="utf-8")

    return change


def in_json(name: str, edit: Callable[[dict[str, Any]], Any], indent: int | None = 2) -> Change:
    def change(directory: Path) -> None:
        file = directory / "model" / name
        content = json.loads(file.read_text(encoding="utf-8"))
        edit(content)
        file.write_text(json.dumps(content, indent=indent), encoding="utf-8")

    return change


def in_weights(shard: str, edit: Callable[[Any], Any] = lambda _: None) -> Change:
    def change(directory: Path) -> None:
        from transformers import AutoModelForCausalLM

        model = AutoModelForCausalLM.from_pretrained(directory / "model")
        edit(model)
        (directory / "model" / "model.safetensors").unlink()
        model.save_pretrained(directory / "model", max_shard_size=shard)

    return change


# What they do to the plan: `keys` stay, `bytes` are known to be equal once they are prepared.
INNOCUOUS: dict[str, tuple[str, Change]] = {
    "num_train_epochs under max_steps": ("keys", in_spec("[train]", "num_train_epochs = 7")),
    "warm-up of a constant rate": ("keys", in_spec("[train]", "warmup_steps = 2")),
    "loraplus_lr_ratio of 1": ("keys", in_spec("[train]", "loraplus_lr_ratio = 1")),
    "every layer by number": ("keys", in_spec("[lora]", "layers_to_transform = [0, 1]")),
    "a rank_pattern of the rank": ("keys", in_spec("[lora]", "rank_pattern = { q_proj = 4 }")),
    "an alpha_pattern of alpha": ("keys", in_spec("[lora]", 'alpha_pattern = { "q_proj|v_proj" = 8 }')),
    "an exclusion of nothing": ("keys", in_spec("[lora]", 'exclude_modules = ["lm_head"]')),
    "resharded weights": ("keys", in_weights("20KB")),
    "a longer max_length": ("bytes", in_spec("max_length = 32", "max_length = 48")),
    "too_long drops nothing": ("bytes", in_spec("[data]", 'too_long = "drop"')),
    "too_long cuts nothing": ("bytes", in_spec("[data]", 'too_long = "truncate"')),
    "a filter that every row fulfils": ("bytes", in_spec("[data]", "where = 'prompt != \"\"'")),
    "a column by its own name": ("bytes", in_spec("[data]", 'columns = { prompt = "prompt" }')),
    "CRLF": ("bytes", lambda directory: write_rows(directory, rows(), "\r\n")),
    "order of the columns": (
        "bytes",
        lambda directory: write_rows(directory, [dict([*r.items()][::-1]) for r in rows()]),
    ),
    "an unused column": ("bytes", lambda directory: write_rows(directory, [{**r, "id": "7"} for r in rows()])),
    "an indented tokenizer": ("bytes", in_json("tokenizer.json", lambda _: None, 7)),
    "a chat template": (
        "bytes",
        lambda directory: (directory / "model" / "chat_template.jinja").write_text("{{ messages[0].content }}"),
    ),
    "another end token": ("keys", in_json("generation_config.json", lambda c: c.update(eos_token_id=[2, 9]))),
}
MEANT: dict[str, Change] = {
    "other ranks": in_spec("[lora]", "rank_pattern = { q_proj = 2 }"),
    "fewer layers": in_spec("[lora]", "layers_to_transform = [0]"),
    "an exclusion": in_spec("[lora]", 'exclude_modules = ["q_proj"]'),
    "epochs without max_steps": in_spec("max_steps = 2", "num_train_epochs = 2"),
    "LoRA+": in_spec("[train]", "loraplus_lr_ratio = 2"),
    "decay of DoRA's vectors": lambda directory: (
        in_spec("[lora]", "use_dora = true")(directory),
        in_spec("[train]", "weight_decay = 0.1\nloraplus_lr_ratio = 1")(directory),
    ),
    "one weight": in_weights("20KB", lambda model: model.lm_head.weight.data[0, 0].add_(1)),
    "a config": in_json("config.json", lambda c: c.update(rms_norm_eps=1e-3)),
    "another padding token": in_json("tokenizer_config.json", lambda c: c.update(pad_token="[MASK]")),
    "a larger train split": in_spec("train = 16", "train = 17"),
    "a loss on the prompts": in_spec("[data]", "completion_only_loss = false"),
}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("trained")
    make_checkpoint("llama", directory / "model")
    write_rows(directory, rows())
    (directory / "study.toml").write_text(SPEC, encoding="utf-8")
    load(directory).apply()
    return directory


@pytest.fixture
def copy(trained: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(trained, tmp_path / "copy"))


def load(directory: Path) -> Study:
    return Study.load(directory / "study.toml", directory / ".lora")


def training(plan: Plan) -> set[str]:
    """Return the keys of what would be trained, whatever its data are prepared to."""
    return {change.key for change in plan.work if change.kind == "train"} - plan.if_equal


@pytest.mark.parametrize("name", INNOCUOUS)
def test_what_cannot_change_a_result_trains_nothing(copy: Path, name: str) -> None:
    how, change = INNOCUOUS[name]
    change(copy)
    plan = load(copy).plan()
    kinds = {change.kind for change in plan.work if change.key not in plan.if_equal}
    expected = {"keys": set[str](), "bytes": {"prepare"}}[how]
    assert kinds == ({"predict", "score"} if "end token" in name else expected)
    if how == "bytes":
        assert {c.reason for c in plan.work if c.kind == "train"} == {"reused if prepared equal, known after prepare"}
    applied = load(copy).apply(plan)
    assert {attempt.kind for attempt in applied.attempts} == kinds
    assert not load(copy).plan().work


@pytest.mark.parametrize("name", MEANT)
def test_what_changes_a_result_still_trains(copy: Path, name: str) -> None:
    MEANT[name](copy)
    assert len(training(load(copy).plan())) == 1


def test_data_that_turn_out_different_are_trained_on(copy: Path) -> None:
    write_rows(copy, [{**row, "completion": row["completion"] + " ."} for row in rows()])
    plan = load(copy).plan()
    assert not training(plan)
    kinds = [attempt.kind for attempt in load(copy).apply(plan).attempts]
    assert kinds.count("prepare") == 3
    assert kinds.count("train") == 1
    assert not load(copy).plan().work


def test_what_is_prepared_when_an_apply_is_killed_is_reused_by_the_next(copy: Path) -> None:
    in_spec("max_length = 32", "max_length = 48")(copy)
    study = load(copy)
    study.apply(study.plan(target=["data/*"]))
    plan = study.plan()
    assert not plan.work
    assert all("prepared to the same bytes as" in c.reason for c in plan.changes if c.kind == "prepare")


def test_a_bundle_carries_what_is_equal(copy: Path, tmp_path: Path) -> None:
    in_spec("max_length = 32", "max_length = 48")(copy)
    load(copy).apply()
    export_bundle(State.read(copy / ".lora"), (), tmp_path / "all.bundle")
    shutil.rmtree(copy / ".lora")
    import_state(tmp_path / "all.bundle", copy / ".lora")
    assert {acceptance.reason for acceptance in State.read(copy / ".lora").acceptances().values()} == {
        "prepared to the same bytes"
    }
    assert not load(copy).plan().work


@pytest.mark.parametrize(
    "change", [in_spec("[train]", "num_train_epochs = 7"), in_spec("[lora]", "layers_to_transform = [0, 1]")]
)
def test_results_whose_keys_hold_a_setting_that_cannot_matter_count(copy: Path, change: Change) -> None:
    shutil.rmtree(copy / ".lora")
    change(copy)
    study = load(copy)
    earlier = build(study.spec, replace(study.plan().graph.lock, as_written=True))  # as versions before did
    study.apply(State.snapshot(study.state, lambda state: decide(new_plan(earlier), state)))
    done = {attempt.key for attempts in State.read(copy / ".lora").latest().values() for attempt in attempts}
    assert done == set(earlier.nodes)
    plan = load(copy).plan()
    assert not plan.work
    (train,) = [change for change in plan.changes if change.kind == "train"]
    assert "but for settings that cannot matter, the same as" in train.reason
    assert set(plan.graph.nodes) == done
