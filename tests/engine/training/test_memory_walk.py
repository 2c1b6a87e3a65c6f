"""A walked step holds what a real step on the CPU holds, by the allocations that torch's own profiler records."""

from typing import Any

import pytest

torch = pytest.importorskip("torch")

from peft import LoraConfig, inject_adapter_in_model  # noqa: E402
from torch.profiler import ProfilerActivity, profile  # noqa: E402
from transformers import AutoConfig, AutoModelForCausalLM  # noqa: E402

from lorafile.engine.batching.batches import Batch  # noqa: E402
from lorafile.engine.model import loss  # noqa: E402
from lorafile.engine.training.memory_walk import Step, walk  # noqa: E402
from lorafile.plan.forecast.memory import PIECE  # noqa: E402
from lorafile.specs.tables.train import TrainTable  # noqa: E402

VOCABULARY, EXAMPLES, LENGTH, SUPERVISED = 128_256, 2, 128, 64
CONFIG: dict[str, Any] = {
    "model_type": "llama",
    "hidden_size": 128,
    "intermediate_size": 344,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": VOCABULARY,
}
LORA = {"r": 16, "lora_alpha": 32, "target_modules": ["q_proj", "v_proj", "up_proj"]}


def real_peak(method: str, dtype: str) -> int:
    """Return the bytes at the peak of a step whose optimizer has its moments: those held before, and all allocated."""
    fields = {key: value for key, value in CONFIG.items() if key != "model_type"}
    model: Any = AutoModelForCausalLM.from_config(AutoConfig.for_model("llama", **fields), dtype=getattr(torch, dtype))
    if method == "lora":
        model = inject_adapter_in_model(LoraConfig(**LORA), model)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    held = sum(parameter.nbytes for parameter in model.parameters()) + 2 * sum(tensor.nbytes for tensor in trained)
    ids = torch.randint(0, 1000, (EXAMPLES, LENGTH))
    supervised = torch.zeros_like(ids, dtype=torch.bool)
    supervised[:, -SUPERVISED:] = True
    batch = Batch(list(range(EXAMPLES)), ids, torch.ones_like(ids), supervised)
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
        loss.summed_loss(model.train(), batch).backward()
    events = profiled.profiler.kineto_results.events()  # type: ignore[union-attr]
    now = peak = 0
    for event in sorted((e for e in events if e.name() == "[memory]"), key=lambda e: e.start_ns()):
        now += event.nbytes()
        peak = max(peak, now)
    return held + peak


@pytest.mark.parametrize(("method", "dtype"), [("lora", "bfloat16"), ("full", "float32")])
def test_a_walk_agrees_with_a_real_step_over_a_large_vocabulary(
    method: str, dtype: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loss, "_CPU_PIECE", loss._GPU_PIECE)  # a walk is of a GPU, whose pieces are larger
    settings = {
        "model": {"dtype": dtype},
        "quantization": None,
        "adapter": {"method": method, **(LORA if method == "lora" else {})},
        "training": TrainTable().model_dump(),
    }
    walked = walk(Step(CONFIG, settings, EXAMPLES, LENGTH, EXAMPLES * SUPERVISED))
    assert sum(vars(walked).values()) == pytest.approx(real_peak(method, dtype), rel=0.1)
    assert walked.logits > 2 * EXAMPLES * SUPERVISED * VOCABULARY * torch.finfo(getattr(torch, dtype)).bits / 8


def test_the_arithmetic_knows_the_pieces_of_the_loss() -> None:
    assert PIECE == loss._GPU_PIECE
