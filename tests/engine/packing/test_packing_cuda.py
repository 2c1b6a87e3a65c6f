"""Adapters trained together on a GPU: the same training as alone, less memory than apart, and how it runs out."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
if not torch.cuda.is_available():
    pytest.skip("no GPU", allow_module_level=True)

from engine_fixture import Engine  # noqa: E402
from pack_runs_fixture import MIX, Runs, Setting, assert_agree  # noqa: E402

from lorafile.engine.model.peak_memory import peak, reset_peak  # noqa: E402
from lorafile.engine.run import SplitBatch, run_together  # noqa: E402
from lorafile.files.jsonl import read_lines  # noqa: E402

DEVICE = torch.device("cuda")
EIGHT: list[Setting] = [{"seed": seed, "per_device_train_batch_size": 32, "max_steps": 12} for seed in range(8)]


@pytest.fixture
def wide(tmp_path: Path, tiny_model: Path, rows_file: Path) -> Iterator[Runs]:
    """A Llama of 512 columns: a step takes some hundred megabytes for each adapter."""
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    shape = {"hidden_size": 512, "intermediate_size": 1024, "num_hidden_layers": 4, "num_attention_heads": 8}
    torch.manual_seed(0)
    LlamaForCausalLM(LlamaConfig(vocab_size=len(tokenizer), pad_token_id=3, **shape)).save_pretrained(tmp_path / "wide")
    tokenizer.save_pretrained(tmp_path / "wide")
    runs = Runs(Engine(tmp_path / "wide", rows_file, tmp_path), "float32", stop=40)
    try:
        yield runs
    finally:
        runs.bases.drop()


def losses(out: Path) -> list[float]:
    return [float(row["loss"]) for row in read_lines(out / "curve.jsonl.gz")]


def test_a_mix_together_is_the_mix_alone_in_float64(engine: Engine) -> None:
    runs = Runs(engine)
    for found, setting in zip(runs.together(MIX), MIX, strict=True):
        assert_agree(found, runs.alone(setting))


@pytest.mark.parametrize(
    ("dtype", "quantization", "first", "later"),
    [("float32", "none", 1e-5, 1e-3), ("bfloat16", "none", 1e-2, 5e-2), ("bfloat16", "nf4", 1e-2, 5e-2)],
)
def test_the_curves_agree_within_the_rounding_of_the_type(
    engine: Engine, dtype: str, quantization: str, first: float, later: float
) -> None:
    """The first loss is of the same weights; after that rounding is amplified by training."""
    mix = [{**setting, "bf16": dtype == "bfloat16"} for setting in MIX]
    runs = Runs(engine, dtype, quantization)
    for (done, out), setting in zip(runs.together(mix), mix, strict=True):
        assert done.outcome == "done", done.message
        ours, theirs = losses(out), losses(runs.alone(setting)[1])
        assert ours[0] == pytest.approx(theirs[0], rel=first)
        assert ours == pytest.approx(theirs, rel=later)


def peak_of(work: Callable[[], Any]) -> tuple[int, int]:
    """Return the bytes allocated and reserved at their peak."""
    reset_peak(DEVICE)
    work()
    return peak(DEVICE)


def test_eight_together_take_less_memory_than_eight_apart(wide: Runs) -> None:
    wide.alone(EIGHT[0])  # the base is loaded, and libraries have their workspaces
    one, _ = peak_of(lambda: wide.alone(EIGHT[0]))
    eight, _ = peak_of(lambda: wide.together(EIGHT))
    assert one < eight < 8 * one


def test_what_does_not_fit_is_said_with_the_width_that_may(wide: Runs) -> None:
    wide.alone(EIGHT[0])
    _, four = peak_of(lambda: wide.together(EIGHT[:4]))
    _, eight = peak_of(lambda: wide.together(EIGHT))
    whole = torch.cuda.get_device_properties(DEVICE).total_memory
    requests, silent = [wide.request(setting) for setting in EIGHT], [lambda _: None] * 8
    reset_peak(DEVICE)
    torch.cuda.set_per_process_memory_fraction((four + eight) / 2 / whole)
    try:
        with pytest.raises(SplitBatch) as told:
            run_together(requests, [wide.out() for _ in requests], wide.bases, silent)
        assert (told.value.size, told.value.crowded) == (4, True)
        halves = [
            run_together(some, [wide.out() for _ in some], wide.bases, silent[:4])
            for some in (requests[:4], requests[4:])
        ]
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert [done.outcome for half in halves for done in half] == ["done"] * 8


def test_tokens_per_second_are_told(wide: Runs, capsys: pytest.CaptureFixture[str]) -> None:
    """Figures to read, not to assert: `benchmarks/pack.py` measures them on models of a real size."""

    def speed(settings: list[Setting]) -> float:
        stamps: list[float] = []
        reports = [lambda _: stamps.append(time.perf_counter()), *([lambda _: None] * (len(settings) - 1))]
        found = wide.together(settings, reports=reports)
        tokens = sum(done.figures["tokens"] / done.figures["steps"] for done, _ in found)
        return float(tokens * (len(stamps) - 3) / (stamps[-1] - stamps[2]))

    one, eight = speed(EIGHT[:1]), speed(EIGHT)
    assert min(one, eight) > 0
    with capsys.disabled():
        print(f"\n{torch.cuda.get_device_name()}: 1 adapter {one:,.0f} tokens/s, 8 together {eight:,.0f}")
