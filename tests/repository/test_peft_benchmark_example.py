"""The example of PEFT's comparison: its protocol, its published figures, and a plan of every configuration."""

import json
from collections import Counter
from pathlib import Path

from lorafile import Study
from lorafile.specs import load

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "peft-benchmark" / "study.toml"


def test_its_protocol_is_that_of_the_published_runs() -> None:
    spec = load(EXAMPLE)
    assert spec.tables.study.seeds == [0, 1, 2]
    by_name = {configuration.name.partition("/")[2]: configuration for configuration in spec.configurations}
    for name, configuration in by_name.items():
        if configuration.train is None:
            continue
        train = configuration.train
        assert (train.max_steps, train.per_device_train_batch_size, train.gradient_accumulation_steps) == (5000, 4, 1)
        assert (train.lr_scheduler_type, train.warmup_steps, train.max_grad_norm) == ("cosine", 0.1, 1.0), name
        assert configuration.data.max_length == 768
    plain = by_name["lora-r32"].train
    assert plain is not None
    assert (plain.learning_rate, plain.weight_decay) == (1e-4, 0.1)
    full = by_name["full"].train
    assert full is not None
    assert (full.learning_rate, full.weight_decay) == (1e-5, 0.01), "torch's own decay where a run names none"


def test_every_trained_configuration_has_a_published_figure() -> None:
    tables, trained = load(EXAMPLE).tables, [c for c in load(EXAMPLE).configurations if c.train is not None]
    assert len(tables.reference) == len(trained) == 18
    for reference in tables.reference:
        assert reference.n == 1319
        right = reference.value * reference.n
        assert abs(right - round(right)) < 1e-3, reference.name
        assert (reference.sd, reference.seeds) == (0.0117, 86)
        assert "peft 0.19" in reference.source or "peft 0.2" in reference.source


def test_every_configuration_can_be_planned(tmp_path: Path) -> None:
    for split, count in (("train", 40), ("test", 8)):
        rows = ({"query": f"What is {n} + 1?", "response": f"{n + 1}\n#### {n + 1}"} for n in range(count))
        (tmp_path / f"{split}.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
    text = EXAMPLE.read_text(encoding="utf-8").replace("meta-llama/Llama-3.2-3B", "builtin:facts-llama")
    (tmp_path / "study.toml").write_text(text.replace("../data/metamathqa-gsm8k", "."), encoding="utf-8")
    plan = Study.load(tmp_path / "study.toml", tmp_path / ".lora").plan()
    kinds = Counter(plan.graph.nodes[change.key].kind for change in plan.work)
    assert (kinds["train"], kinds["predict"], kinds["score"]) == (18 * 3, 18 * 3 + 1, 18 * 3 + 1)
