"""How many adapters go together: what the search tries, and that measuring leaves nothing behind."""

from collections.abc import Callable
from dataclasses import replace

import pytest

torch = pytest.importorskip("torch")

from engine_fixture import LORA, MODEL, Engine, two_trains  # noqa: E402

from lorafile.engine.model.fingerprint import fingerprint  # noqa: E402
from lorafile.engine.packing.pack_sizes import (  # noqa: E402
    Speed,
    TrainingTrial,
    TrialAdapters,
    measure_pack_sizes,
    widest,
)
from lorafile.engine.request import PackSizes, Request, Stopped  # noqa: E402
from lorafile.specs.tables.train import PACKED_ROW_LENGTH  # noqa: E402

LONG = 100_000  # steps: any measurement is worth it


def device(gains: dict[int, float], tried: list[int], full: int = 10**6) -> Callable[[int], Speed]:
    """Return a device that makes so many times the tokens a second of width 1, and holds `full` adapters."""

    def speed(width: int) -> Speed:
        tried.append(width)
        if width > full:
            raise torch.OutOfMemoryError
        return Speed(width / gains[width], 100 * gains[width])

    return speed


def test_it_doubles_as_long_as_that_gains_a_tenth() -> None:
    tried: list[int] = []
    width, found = widest(device({1: 1, 2: 1.8, 4: 2.5, 8: 2.6, 16: 9}, tried), lambda: 16, LONG)
    assert width == 4
    assert tried == list(found) == [1, 2, 4, 8]


def test_it_takes_no_more_than_there_are() -> None:
    tried: list[int] = []
    assert widest(device({1: 1, 2: 2, 4: 4, 6: 6}, tried), lambda: 6, LONG)[0] == 6


def test_memory_that_runs_out_is_the_limit() -> None:
    tried: list[int] = []
    assert widest(device({1: 1, 2: 2, 4: 4, 8: 8}, tried, full=5), lambda: 16, LONG)[0] == 4
    assert tried == [1, 2, 4, 8]


def test_little_work_is_not_measured_and_more_is_measured_for_a_twentieth_of_it_at_most() -> None:
    tried: list[int] = []
    doubling = device({1: 1, 2: 1.2, 4: 1.4, 8: 1.6, 16: 1.8}, tried)
    assert widest(doubling, lambda: 16, 60) == (1, {})
    assert tried == []
    for steps in (200, 400, 1000, 4000):
        tried.clear()
        _, found = widest(doubling, lambda: 16, steps)
        assert sum(3 * one.seconds for one in found.values()) <= 0.05 * steps * found[1].seconds
        assert len(found) >= 2


def test_steps_of_packed_rows_are_measured_with_as_many_rows_as_each_run_has(engine: Engine) -> None:
    runs = two_trains(engine, 1000)
    for one in runs:
        training = one[0].settings["training"] | {"gradient_accumulation_steps": 2, PACKED_ROW_LENGTH: 64}
        one[0] = replace(one[0], settings={**one[0].settings, "training": training})
    base = engine.bases.get(runs[0][0].settings, runs[0][0].paths)
    trial = TrainingTrial(TrialAdapters(base, [one[0] for one in runs]), lambda progress: None)
    assert trial.steps == 2000
    assert min(trial.speed(1).rate, trial.speed(2).rate) > 0


def test_real_steps_and_answers_are_measured_and_the_base_is_what_it_was(engine: Engine) -> None:
    runs = two_trains(engine, 1000)
    task = {"output": "generation", "max_new_tokens": 4000}
    for one in runs:
        settings = {"model": MODEL, "quantization": None, "task": task}
        reads = {"data": one[0].inputs["train"]}
        one.append(Request(f"p{one[0].key}", "predict", "a", settings, one[0].paths, reads, {"adapter": one[0].key}))
    found = measure_pack_sizes(runs, engine.bases, lambda progress: None)
    assert found.train in (1, 2)
    assert found.predict in (1, 2)
    assert "answers/s with 1, " in found.why
    assert "tokens/s with 1, " in found.why
    assert "tokens/s with 2). " in found.why
    base = engine.bases.get({"model": MODEL, "quantization": None}, {"model": str(engine.model)})
    base.check()
    assert fingerprint(base.model, "") == base.fingerprint
    assert not [name for name, _ in base.model.named_modules() if "lora" in name or "base_layer" in name]
    assert not base.model.training
    assert measure_pack_sizes(two_trains(engine, 3), engine.bases, lambda progress: None) == PackSizes(), "not worth it"


def test_a_measurement_that_fails_is_told_and_one_that_is_stopped_ends(engine: Engine) -> None:
    broken = [
        [replace(one[0], settings={**one[0].settings, "adapter": {**LORA, "target_modules": ["nothing"]}})]
        for one in two_trains(engine, 1000)
    ]
    found = measure_pack_sizes(broken, engine.bases, lambda progress: None)
    assert (found.train, found.predict) == (1, 1)
    assert "one at a time" in found.why

    def stop(progress: dict[str, object]) -> None:
        raise Stopped

    with pytest.raises(Stopped):
        measure_pack_sizes(two_trains(engine, 1000), engine.bases, stop)
