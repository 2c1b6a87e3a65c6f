"""A plan's work in groups: what may go together, and what waits for what."""

from pathlib import Path

import pytest

pytest.importorskip("torch")

from lorafile import Study
from lorafile.apply.work_groups import can_pack, groups
from lorafile.plan.plan import Plan


def plan(spec_file: Path, more: str) -> Plan:
    text = spec_file.read_text(encoding="utf-8")
    spec_file.write_text(text + "\n[[sweep]]\nname = 'a'\n" + more, encoding="utf-8")
    return Study.load(spec_file, spec_file.parent / ".lora").plan()


def test_plain_adapters_of_any_rank_module_rate_and_seed_go_together(spec_file: Path) -> None:
    more = "lora.r = [2, 4]\nlora.target_modules = [['q_proj'], 'mlp']\ntrain.learning_rate = [1e-3, 1e-4]\n"
    found = plan(spec_file, more)
    classes = [group.pack for group in groups(found) if len(group.keys) > 1]
    assert len(classes) == 16
    assert len(set(classes)) == 1
    assert classes[0]
    assert can_pack(found)


@pytest.mark.parametrize(
    "more",
    [
        "method = ['full']",
        "lora.use_dora = [true]",
        "lora.bias = ['all']",
        "lora.init_lora_weights = ['pissa']",
        "lora.modules_to_save = [['lm_head']]",
    ],
)
def test_others_are_done_alone(spec_file: Path, more: str) -> None:
    found = plan(spec_file, f"{more}\n")
    assert not [group for group in groups(found) if group.pack]
    assert not can_pack(found)


def test_another_batch_size_or_other_examples_are_another_class(spec_file: Path) -> None:
    more = "train.per_device_train_batch_size = [4, 8]\ndata.max_length = [32, 48]\n"
    assert len({group.pack for group in groups(plan(spec_file, more)) if group.pack}) == 4


def test_a_replicate_waits_for_its_own_examples(spec_file: Path) -> None:
    found = plan(spec_file, "data.max_length = [32, 48]\n")
    nodes = found.graph.nodes
    for group in groups(found):
        inputs = {other for key in group.keys for other in nodes[key].inputs.values()}
        assert group.after == {key for key in inputs if nodes[key].kind == "prepare"}
        assert group.after or nodes[group.keys[0]].kind == "prepare"
