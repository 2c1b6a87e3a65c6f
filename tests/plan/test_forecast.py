"""The forecast: what can be counted is exact, what cannot is of the right size and moves the right way."""

from pathlib import Path

import pytest

from lorafile import specs
from lorafile.errors import LoraError
from lorafile.graph.parameter_count import adapter_parameters
from lorafile.lock.lockfile import ModelLock, resolve
from lorafile.plan.forecast.forecasts import device, forecasts
from lorafile.plan.planner import make_plan, plan_work
from lorafile.state import State

SPEC = """
[study]
name = "f"
seeds = [1]
[model]
path = "builtin:facts-llama"
[data]
path = "builtin:facts"
{more}
"""


def peaks(more: str, tmp_path: Path, gpu: str | None = None) -> dict[str, dict[str, float]]:
    """Return configuration -> forecast of its training."""
    spec = specs.parse(SPEC.format(more=more), Path("study.toml"))
    state = State.read(tmp_path / "none")
    plan = plan_work(spec, resolve(spec, None)[0], state)
    found = forecasts(plan, state, gpu)
    return {change.configuration: found[change.key] for change in plan.work if change.kind == "train"}


@pytest.mark.parametrize(
    "extra", [{}, {"use_dora": True}, {"layers_to_transform": [0, 3]}, {"rank_pattern": {"q_proj": 2}}, {"r": 3}]
)
def test_adapter_parameters_are_what_peft_counts(extra: dict[str, object]) -> None:
    pytest.importorskip("torch")
    from peft import LoraConfig, inject_adapter_in_model
    from transformers import AutoModelForCausalLM

    from lorafile.engine.data.sources import find_model

    where = find_model("builtin:facts-llama", None, Path())
    settings = {"r": 8, "target_modules": ["q_proj", "v_proj", "down_proj"], **extra}
    model = inject_adapter_in_model(LoraConfig(**settings), AutoModelForCausalLM.from_pretrained(where))
    theirs = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    spec = specs.parse(SPEC.format(more=""), Path("study.toml"))
    lock: ModelLock = next(iter(resolve(spec, None)[0].models.values()))
    assert adapter_parameters({"method": "lora", **settings}, lock) == theirs


def test_a_processor_without_instructions_for_a_dtype_is_named_and_slower(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = specs.parse(SPEC.format(more='[[sweep]]\nmodel.dtype = ["float32", "bfloat16"]'), Path("study.toml"))
    state, lock = State.read(tmp_path / "none"), resolve(spec, None)[0]

    def planned(slow: set[str]) -> tuple[list[str], dict[str, float]]:
        monkeypatch.setattr("lorafile.plan.forecast.devices.slow_dtypes", lambda: frozenset(slow))
        plan = make_plan(spec, lock, state)
        said = [line for line in plan.warnings if line.startswith("model.dtype")]
        return said, {c.configuration: c.forecast["seconds"] for c in plan.work if c.kind == "train"}

    fast, slow = planned(set()), planned({"bfloat16"})
    assert fast[0] == []
    (line,) = slow[0]
    assert 'Set model.dtype = "float32", or use a GPU (dtype/dtype=bfloat16).' in line
    assert slow[1]["dtype/dtype=float32"] == fast[1]["dtype/dtype=float32"]
    assert slow[1]["dtype/dtype=bfloat16"] > fast[1]["dtype/dtype=bfloat16"]


def test_memory_moves_the_right_way(tmp_path: Path) -> None:
    sweep = '[[sweep]]\nname = "s"\n'
    ranks = peaks(sweep + "lora.r = [4, 64]\n", tmp_path)
    assert ranks["s/r=4"]["peak_memory_bytes"] < ranks["s/r=64"]["peak_memory_bytes"]
    batches = peaks(sweep + "train.per_device_train_batch_size = [1, 8]\n", tmp_path)
    assert (
        batches["s/per_device_train_batch_size=1"]["peak_memory_bytes"]
        < batches["s/per_device_train_batch_size=8"]["peak_memory_bytes"]
    )
    again = peaks(sweep + "train.gradient_checkpointing = [true, false]\n", tmp_path)
    assert (
        again["s/gradient_checkpointing=true"]["peak_memory_bytes"]
        < again["s/gradient_checkpointing=false"]["peak_memory_bytes"]
    )
    bases = peaks(sweep + 'quantization = ["none", "int8", "nf4"]\n', tmp_path, "24GB")
    none, int8, nf4 = (bases[f"s/quantization={name}"]["peak_memory_bytes"] for name in ("none", "int8", "nf4"))
    assert nf4 < int8 < none
    methods = peaks(sweep + 'method = ["lora", "full"]\n', tmp_path)
    assert methods["s/method=lora"]["peak_memory_bytes"] < methods["s/method=full"]["peak_memory_bytes"]


def test_on_a_processor_peak_memory_is_the_resident_size_of_a_worker(tmp_path: Path) -> None:
    found = peaks('[[sweep]]\nname = "s"\nquantization = ["none", "nf4"]\n', tmp_path)
    none, nf4 = (found[f"s/quantization={name}"]["reserved_bytes"] for name in ("none", "nf4"))
    # The quickstart's profiles on two cores: 453 MiB resident with 27 MiB of tensors, most of it Python and torch.
    assert none == pytest.approx(453 * 2**20, rel=0.1)
    assert nf4 > none, "a base is read before it is quantized"


def test_whether_it_fits_is_held_against_the_gpu_that_is_asked_for(tmp_path: Path) -> None:
    assert peaks("", tmp_path, "24GB")["lora"]["fits"] is True
    assert peaks("", tmp_path, "500 MB")["lora"]["fits"] is False
    assert device("24GiB").memory == 24 * 2**30
    with pytest.raises(LoraError, match="neither a memory size"):
        device("a big one")


def test_what_was_trained_is_expected_to_end_its_answers_and_what_was_not_may_go_on(tmp_path: Path) -> None:
    sweep = '[[sweep]]\nname = "s"\nmethod = ["none", "lora"]\n[evaluate]\nmetrics = ["exact_match"]\n'

    def answering(limit: int) -> dict[str, float]:
        spec = specs.parse(SPEC.format(more=f"{sweep}max_new_tokens = {limit}\n"), Path("study.toml"))
        state = State.read(tmp_path / "none")
        plan = plan_work(spec, resolve(spec, None)[0], state)
        found, nodes = forecasts(plan, state), plan.graph.nodes
        chosen = [change for change in plan.work if nodes[change.key].settings.get("task", {}).get("max_new_tokens")]
        return {change.configuration: found[change.key]["seconds"] for change in chosen}

    short, long = answering(200), answering(2000)  # both more than any answer of this data set has
    assert long["s/method=lora"] == short["s/method=lora"]
    assert long["s/method=none"] > 5 * short["s/method=none"]


def test_an_untuned_model_beside_trained_ones_is_not_walked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("torch")
    monkeypatch.setattr("lorafile.plan.forecast.forecasts._WALKED_FROM", 1)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    found = peaks('[[sweep]]\nname = "s"\nmethod = ["none", "lora"]\n', tmp_path, "24GB")
    assert found["s/method=lora"]["memory_source"] == "walked"
