"""A plan for a cluster is made for its devices, whatever stands on the machine that plans."""

import json
import sqlite3
from pathlib import Path

import pytest

from lorafile.errors import LoraError
from lorafile.plan.clusters.config import find_cluster
from lorafile.plan.clusters.machines import of_cluster, sold_memory
from lorafile.study.study import Study

H100, A100 = "NVIDIA H100 80GB HBM3", "NVIDIA A100-SXM4-80GB"
LAB = f"""
[cluster.lab]
executor = "slurm"
[[cluster.lab.device]]
name = "{H100}"
count = 8
price = "$2.50/h"
[cluster.other]
executor = "slurm"
[[cluster.other.device]]
name = "{A100}"
[cluster.mixed]
executor = "ray"
workers = 3
[[cluster.mixed.device]]
name = "{H100}"
memory = "80GB"
count = 2
price = "$3/h"
[[cluster.mixed.device]]
name = "RTX 4090"
count = 4
price = "$0.60/h"
[cluster.secret]
executor = "ray"
[[cluster.secret.device]]
name = "Secret GPU"
[cluster.wide]
executor = "slurm"
[[cluster.wide.device]]
name = "{A100}"
count = 8
gpus_per_worker = 4
price = "2 EUR/h"
"""


@pytest.fixture
def study(spec_file: Path, monkeypatch: pytest.MonkeyPatch) -> Study:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(spec_file.parent / "config"))
    (spec_file.parent / "lora.toml").write_text(LAB, encoding="utf-8")
    short = "[profile]\nwarmup_steps = 1\nsteps = 1\nnew_tokens = 2\nrepeats = 1\n"
    text = spec_file.read_text(encoding="utf-8").replace("[profile]\nenabled = false\n", short)
    spec_file.write_text(text, encoding="utf-8")
    return Study.load(spec_file, spec_file.parent / "state")


def claim(state: Path, device: str) -> None:
    """Make every result of a state one that workers with such a GPU recorded, with its driver and libraries."""
    with sqlite3.connect(state / "state.db") as connection:
        for digest, text in connection.execute("SELECT digest, settings FROM environments").fetchall():
            settings = {**json.loads(text), "device": device, "driver": "570.1", "torch": "2.9.1", "peft": "1.0"}
            connection.execute("UPDATE environments SET settings = ? WHERE digest = ?", (json.dumps(settings), digest))
        connection.execute("UPDATE attempts SET device = ?", (device,))
    (state / "state.db.sum").unlink()  # the index is another one now, and on purpose


def test_after_an_apply_on_a_clusters_devices_its_next_plan_is_empty(study: Study) -> None:
    study.apply()
    claim(study.state, H100)
    actions = {change.kind: change.action.value for change in study.plan(cluster="lab").changes}
    assert set(actions.values()) == {"reuse"}
    here = [change.action.value for change in study.plan().changes if change.kind == "train"]
    assert set(here) == {"drift"}
    elsewhere = study.plan(cluster="other")
    assert {change.reason for change in elsewhere.changes if change.kind == "train"} == {
        f"done elsewhere: device {H100} is now {A100}"
    }
    assert {change.kind for change in elsewhere.work} == {"profile"}  # which nobody has measured there


def test_the_bill_is_that_of_the_devices(study: Study) -> None:
    from lorafile.plan.cost import estimate_cost

    plan = study.plan(cluster="lab")
    sums = estimate_cost(plan)
    assert (plan.device, plan.workers) == (H100, 8)
    assert sums.device_hours == pytest.approx(sums.seconds / 3600)
    assert sums.cost == pytest.approx(2.5 * sums.device_hours)
    wide = study.plan(cluster="wide")
    assert wide.workers == 2
    assert estimate_cost(wide).device_hours == pytest.approx(4 * estimate_cost(wide).seconds / 3600)
    assert str(wide.hourly.money(1)) == "1.00 EUR" if wide.hourly else pytest.fail("no price")


def test_a_plan_for_several_kinds_fits_the_smallest(study: Study) -> None:
    plan = study.plan(cluster="mixed")
    assert plan.target is not None
    assert plan.target.name == "RTX 4090"
    assert plan.workers == 3
    assert plan.hourly == pytest.approx((2 * 3 + 4 * 0.6) / 6)


def test_a_gpu_of_which_nothing_is_known_needs_its_memory(study: Study) -> None:
    with pytest.raises(LoraError, match=r'\[cluster.secret\].*the memory of "Secret GPU" is unknown. Set memory'):
        study.plan(cluster="secret")


def test_a_saved_plan_is_applied_in_its_clusters_state(study: Study, spec_file: Path) -> None:
    theirs = spec_file.parent / "theirs"
    (spec_file.parent / "lora.toml").write_text(f'[cluster.own]\nexecutor = "ray"\nstate = "{theirs}"\n', "utf-8")
    file = spec_file.parent / "plan.json"
    study.save_plan(study.plan(cluster="own"), file)
    assert Study.approved(file)[0].state == theirs
    assert Study.approved(file, study.state)[0].state == study.state


def test_memory_is_that_of_the_card_as_it_is_sold(study: Study) -> None:
    assert sold_memory("0.5TB") == 2**39
    assert sold_memory("80GB") == sold_memory("80 GiB") == 80 * 2**30
    assert of_cluster("mixed", find_cluster("mixed", study.spec.file)).gpus[0].memory == 80 * 2**30


def test_a_saved_plan_is_of_its_cluster(study: Study, spec_file: Path) -> None:
    file = spec_file.parent / "plan.json"
    study.save_plan(study.plan(cluster="lab"), file)
    _, plan = Study.approved(file, study.state)
    assert (plan.machines.cluster, plan.device) == ("lab", H100)
