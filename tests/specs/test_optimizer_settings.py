"""Optimizers in a spec: names, what each reads, and what contradicts it."""

from pathlib import Path
from typing import Any

import pytest
from spec_fixture import message as refused
from spec_fixture import parse

from lorafile.specs.optimizers import OPTIMIZERS, optimizer_rows
from lorafile.specs.schedules import schedule_rows
from lorafile.specs.tables.train import TrainTable


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[train]\noptim = 'adamw_torch_fused'", 'did you mean "adamw_torch"?'),
        ("[train]\noptim = 'lion'", 'did you mean "lion_32bit"?'),
        ("[train]\noptimizer = 'sgd'", 'did you mean "optim"?'),
        ("[train]\noptim = 'sgd'\nadam_beta1 = 0.5", 'train.adam_beta1: optim = "sgd" does not read it'),
        ("[train]\noptim = 'lion_8bit'\nadam_epsilon = 1e-6", "train.adam_epsilon"),
        ("[train]\noptim = 'schedule_free_adamw'\nlr_scheduler_type = 'cosine'", "train.lr_scheduler_type"),
        ("[train]\noptim = 'schedule_free_adamw'\nadam_beta1 = 0.0", "needs a value above 0"),
        ("[train]\noptim = 'lorafa'\n[lora]\nuse_dora = true", "use_dora = true adds vectors to them"),
        ("method = 'ia3'\n[train]\noptim = 'lorafa'", 'method = "ia3" has none'),
        ("[train]\noptim = 'lorafa'\n[lora]\ninit_lora_weights = 'mica'", "does not train them"),
        ("[train]\noptim = 'muon'\nloraplus_lr_ratio = 2", 'LoRA+ cannot be combined with optim = "muon"'),
        ("[train]\noptim = 'lorafa'\nlearning_rates = { q_proj = 1e-4 }", "one learning rate for all modules"),
        ("[train]\nloraplus_lr_ratio = 2\nlearning_rates = { q_proj = 1e-4 }", "set one of the two"),
        ("[train]\nlearning_rates = { q_proj = 0 }", "should be greater than 0"),
    ],
)
def test_what_an_optimizer_cannot_do_is_one_sentence(text: str, message: str) -> None:
    assert message in refused(text)


def test_a_sweep_of_all_optimizers_has_a_configuration_for_each() -> None:
    names = ", ".join(f"'{name}'" for name in OPTIMIZERS)
    spec = parse(f"[train]\nlr_scheduler_type = 'cosine'\n[[sweep]]\nname = 'optimizer'\ntrain.optim = [{names}]\n")
    assert [configuration.varied["train.optim"] for configuration in spec.configurations] == list(OPTIMIZERS)


@pytest.mark.parametrize(
    ("given", "alike"),
    [
        ({"optim": "adamw_torch"}, {}),
        ({"lr_scheduler_kwargs": {}, "learning_rates": {}}, {}),
        ({"learning_rates": {"q_proj": 2e-4}}, {}),
        ({"optim": "sgd", "adam_beta1": 0.5, "adam_epsilon": 1e-3}, {"optim": "sgd"}),
        ({"optim": "lion_32bit", "adam_epsilon": 1e-3}, {"optim": "lion_32bit"}),
        ({"optim": "adafactor", "adam_beta2": 0.5}, {"optim": "adafactor"}),
        ({"optim": "schedule_free_adamw", "lr_scheduler_type": "cosine"}, {"optim": "schedule_free_adamw"}),
    ],
)
def test_what_an_optimizer_does_not_read_changes_no_key(given: dict[str, Any], alike: dict[str, Any]) -> None:
    assert TrainTable(**given).results == TrainTable(**alike).results


def test_what_it_reads_does() -> None:
    assert TrainTable(optim="lion_32bit", adam_beta1=0.5).results != TrainTable(optim="lion_32bit").results
    assert TrainTable(learning_rates={"q_proj": 1e-3}).results != TrainTable().results
    schedule_free = {"optim": "schedule_free_adamw", "lr_scheduler_type": "constant"}
    assert TrainTable(**schedule_free, warmup_steps=5).results["warmup_steps"] == 5  # its rate rises all the same


def test_loss_scaling_has_a_protocol_where_the_schedule_moves() -> None:
    protocols = [
        TrainTable(**given).results.get("loss_scaling_protocol")
        for given in ({}, {"fp16": True}, {"fp16": True, "lr_scheduler_type": "constant"}, {"bf16": True})
    ]
    assert protocols == [None, 2, None, None]
    assert "loss_scaling_protocol" not in TrainTable(fp16=True, trainer="mine").results


def test_the_page_has_the_rows_of_both_tables() -> None:
    page = (Path(__file__).parents[2] / "docs" / "optimizers.md").read_text(encoding="utf-8")
    for row in (*optimizer_rows(gpu=True), *schedule_rows()):
        assert f"| `{row.name}` | {row.capabilities} | {row.note} |" in page
