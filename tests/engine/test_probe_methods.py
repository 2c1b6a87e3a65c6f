"""The table of PEFT's methods: complete, true, and all of it trains in one study."""

import re
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")

from sample_fixture import drawn

from lorafile import Study
from lorafile.engine import probe_methods
from lorafile.engine.write_snapshot import method_configs
from lorafile.specs.snapshot import declared
from lorafile.specs.tables.methods import METHODS, probed, stays_out

# What PEFT's own comparison on MetaMathQA has results for, by the names of PeftType.
RANKED = (
    *("adalora", "adamss", "adaption_prompt", "beft", "boft", "c3a", "deft", "delora", "fourierft", "frod", "glora"),
    *("gralora", "hira", "ia3", "ln_tuning", "loha", "lokr", "lora", "miss", "oft", "osf", "peanut", "prefix_tuning"),
    *("prompt_tuning", "psoft", "p_tuning", "pvera", "randlora", "road", "shira", "supertuning", "tinylora"),
    *("trainable_tokens", "unilora", "vblora", "vera", "waveft"),
)
STUDY = """
[study]
name = "methods"
seeds = [1]
[model]
path = "builtin:facts-llama"
[data]
path = "builtin:facts"
split = {{ train = 16, validation = 4, test = 4 }}
[train]
max_steps = 2
[evaluate]
metrics = ["log_loss", "exact_match"]
max_new_tokens = 3
[profile]
enabled = false
[trainable_tokens]
token_indices = [5, 6, 7]
[[sweep]]
name = "methods"
method = {methods}
"""


def test_every_member_of_pefts_type_has_a_row() -> None:
    """A new PEFT may add one: describe it in specs/methods.toml, and make its row."""
    missing = [name for name in method_configs() if name not in probed() or name not in declared()]
    command = f"python -m lorafile.engine.probe_methods specs/methods.json {' '.join(missing)}"
    assert not missing, f"rows are to be added: describe {missing} in specs/methods.toml, then run: {command}"
    assert {name: row["config"] for name, row in probed().items()} == method_configs()


def test_what_the_field_compares_is_offered_and_the_rest_has_a_reason() -> None:
    assert len(METHODS) >= 34
    assert set(RANKED) <= set(METHODS)
    assert all(len(stays_out(name)) > 30 for name in probed() if name not in METHODS)
    assert all(declared()[name]["paper"] for name in probed())


@pytest.mark.sampled(8)
@pytest.mark.filterwarnings("ignore")  # PEFT's own
@pytest.mark.parametrize("name", sorted(probed()))
def test_a_row_is_what_the_probe_finds(name: str) -> None:
    assert _without_figures(probe_methods.probed([name])[name]) == _without_figures(probed()[name])


def _without_figures(row: dict[str, Any]) -> dict[str, Any]:
    """Return a row whose reasons have no figures: their last digit is the processor's."""
    return {key: re.sub(r"\d+\.\d+", "…", value) if isinstance(value, str) else value for key, value in row.items()}


def test_one_study_trains_every_method(tmp_path: Path, full: bool) -> None:
    """The engine checks that what PEFT adapts, and how many parameters it trains, is what was planned."""
    names = list(METHODS) if full else drawn(list(METHODS), 8, "methods of one study")
    spec = tmp_path / "study.toml"
    spec.write_text(STUDY.format(methods=names), encoding="utf-8")
    study = Study.load(spec, tmp_path / "state")
    applied = study.apply(workers=1)
    assert {attempt.message for attempt in applied.attempts if attempt.outcome != "done"} == set()
    assert sum(attempt.kind == "train" for attempt in applied.attempts) == len(names)
