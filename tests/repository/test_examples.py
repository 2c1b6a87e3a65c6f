"""The examples on real models: a cut of each, of few rows and steps, from plan to report.

The models are looked for in $LORA_EXAMPLE_MODELS; the data in $LORA_EXAMPLE_DATA, else in examples/data, else in the
folder of real data next to the checkout. Without them the tests skip.
"""

import os
import re
from pathlib import Path

import pytest

pytest.importorskip("torch")

from lorafile import Study
from lorafile.specs import load
from lorafile.specs.catalogue import catalogue

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "examples"
SHARED = ROOT.parent / "shared" / "data"
# Example -> its model, its data by the places that they may have, and a split of few rows.
CUTS = {
    "classification": ("all-MiniLM-L6-v2", ("banking77",), "{ train = 64, validation = 16, test = 32 }"),
    "chat": (
        "SmolLM2-135M-Instruct",
        ("self_instruct.jsonl", "instruct/self_instruct.jsonl"),
        "{ train = 6, validation = 2, test = 2 }",
    ),
}


def first_of(places: list[Path]) -> Path:
    """The first place that is there."""
    for place in places:
        if place.exists():
            return place
    pytest.skip(f"no {places[0].name}: {', '.join(map(str, places))} are absent")


def cut(name: str, folder: Path) -> Path:
    """Write an example's spec with its model and data as they are here, few rows, two steps, and one seed."""
    model, names, split = CUTS[name]
    given = {kind: os.environ.get(f"LORA_EXAMPLE_{kind}") for kind in ("MODELS", "DATA")}
    if not given["MODELS"]:
        pytest.skip(f"no {model}: LORA_EXAMPLE_MODELS names no directory")
    models = [Path(given["MODELS"]) / model]
    roots = [Path(given["DATA"])] if given["DATA"] else [EXAMPLES / "data", SHARED]
    text = (EXAMPLES / name / "study.toml").read_text(encoding="utf-8")
    for pattern, value in (
        (rf'path = "[^"]+/{model}"', f'path = "{first_of(models)}"'),
        (r'path = "\.\./data/[^"]+"', f'path = "{first_of([root / place for root in roots for place in names])}"'),
        (r"(?m)^split = .*$", f"split = {split}"),
        (r"(?m)^(num_train_epochs|max_steps) = .*$", "max_steps = 2"),
        (r"(?m)^per_device_train_batch_size = .*$", "per_device_train_batch_size = 2"),
        (r"(?m)^max_length = .*$", "max_length = 64"),
        (r"(?m)^too_long = .*$", 'too_long = "truncate"'),
        (r"(?m)^seeds = .*$", "seeds = [42]"),
    ):
        text, count = re.subn(pattern, value, text)
        assert count == 1, pattern
    file = folder / "study.toml"
    text = re.sub(r"(?m)^texts = .*$", 'texts = ["What is 12 times 12?"]', text)
    file.write_text(text.replace("max_new_tokens = 48", "max_new_tokens = 2"), encoding="utf-8")
    return file


@pytest.mark.parametrize("name", CUTS)
def test_a_cut_of_an_example_goes_from_plan_to_report(name: str, tmp_path: Path) -> None:
    study = Study.load(cut(name, tmp_path), tmp_path / "state")
    planned = study.plan()
    assert [line for line in planned.warnings if "holds no rows, and is ignored" not in line] == []
    applied = study.apply()
    assert [attempt.message for attempt in applied.attempts if attempt.outcome != "done"] == []
    study.report(tmp_path / "report")
    text = (tmp_path / "report" / "RESULTS.md").read_text(encoding="utf-8")
    for configuration in study.spec.configurations:
        assert configuration.name in text
    trained = study.gather().runs.set_index("configuration")["trainable_parameters"].to_dict()
    if name == "classification":
        assert trained["probe/method=head,learning_rate=0.03"] == 77 * 384 + 77
        assert trained["rank/r=2"] < trained["rank/r=8"] < trained["rank/r=32"] < trained["methods/method=full"]


@pytest.mark.parametrize("name", CUTS)
def test_an_example_has_one_path_of_its_model_and_one_of_its_data(name: str) -> None:
    spec = load(EXAMPLES / name / "study.toml")
    assert {Path(c.model.path).name for c in spec.configurations} == {CUTS[name][0]}
    assert {Path(c.data.path).name for c in spec.configurations} == {Path(CUTS[name][1][0]).name}
    assert len(spec.tables.study.seeds) == 3
    assert {"mrpc", "rte", "sst2"} <= set(catalogue()), "which the classification example names"
