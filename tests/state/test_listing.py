"""`lora state`: what is finished can be found, looked at, forgotten, and declared equivalent."""

import json
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from state_fixture import STUDY, finish, graph_of, write_study

from lorafile.cli.main import main
from lorafile.plan.plan import Action, Plan
from lorafile.study.study import Study


@pytest.fixture
def spec(tmp_path: Path) -> Path:
    """A study that is finished."""
    file = write_study(tmp_path)
    finish(file)
    return file


def lora(spec: Path, *words: str) -> Result:
    """Run `lora state …` on a study's state."""
    return CliRunner().invoke(main, ["state", *words, "--state", str(spec.parent / ".lora")])


def names(spec: Path, *words: str) -> list[str]:
    found = lora(spec, "list", "--json", *words)
    assert found.exit_code == 0, found.output
    return [row["name"] for row in json.loads(found.stdout)["rows"]]


def plan(spec: Path) -> Plan:
    return Study.load(spec, spec.parent / ".lora").plan()


def actions(spec: Path) -> dict[str, Action]:
    return {change.address: change.action for change in plan(spec).changes}


RUNS = [f"rank/r={rank}/seed={seed}" for rank in (4, 8) for seed in (1, 2)]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ([], {*RUNS, "baselines/method=none"}),
        (["--where", "lora.r=8"], {"rank/r=8/seed=1", "rank/r=8/seed=2"}),
        (["--where", "adapter.r<8", "--where", "seed=2"], {"rank/r=4/seed=2"}),
        (["--where", "exact_match>=0.4"], set(RUNS)),
        (["--where", "validation.exact_match<0.2"], {"baselines/method=none"}),
        (["--where", "method=none"], {"baselines/method=none"}),
        (["--where", "lora.target_modules=q_proj"], set(RUNS)),
        (["--where", "data.max_length=512"], set(RUNS)),
        (["--where", "final_loss<1"], set()),
        (["--study", "another"], set()),
        (["--outcome", "failed"], set()),
        (["--since", "2026-11-02"], set()),
        (["--until", "2026-11-01T10:00:01"], {*RUNS, "baselines/method=none"}),
        (["--kind", "prepare"], {"data/train:prepare", "data/validation:prepare", "data/test:prepare"}),
    ],
)
def test_a_list_is_filtered(spec: Path, words: list[str], expected: set[str]) -> None:
    assert set(names(spec, *words)) == expected


@pytest.mark.parametrize(
    ("condition", "told"),
    [("lora.rr=3", 'did you mean "lora.r"'), ("lora.r", "write a setting"), ("lora.r>x", "compares numbers")],
)
def test_a_condition_that_means_nothing_is_told(spec: Path, condition: str, told: str) -> None:
    found = lora(spec, "list", "--where", condition)
    assert found.exit_code == 1
    assert told in found.output


def test_show_has_every_file_with_its_path(spec: Path) -> None:
    found = json.loads(lora(spec, "show", "rank/r=4/seed=1", "--json").stdout)
    assert found["settings"]["adapter"]["r"] == 4
    (attempt,) = found["attempts"]
    files = {file["name"]: file for file in attempt["files"]}
    assert (
        Path(files["adapter_model.safetensors"]["path"]).stat().st_size == files["adapter_model.safetensors"]["bytes"]
    )
    assert attempt["environment"]["python"]
    assert {"rank/r=4/seed=1:predict/test/likelihood"} <= {reader["address"] for reader in found["read_by"]}


def test_what_is_forgotten_runs_again_and_what_was_tried_stays(spec: Path) -> None:
    key = next(node.key for node in graph_of(spec).nodes.values() if node.address == "rank/r=4/seed=1:train")
    assert lora(spec, "rm", key[:10]).exit_code == 1, "nobody is there to agree"
    assert Action.RETRY not in actions(spec).values()
    done = lora(spec, "rm", key[:10], "rank/r=8/seed=*:score/*", "--yes", "--reason", "a faulty GPU")
    assert done.exit_code == 0, done.output
    retried = {change.address: change.reason for change in plan(spec).work}
    assert set(retried) == {
        "rank/r=4/seed=1:train",
        *(f"rank/r=8/seed={seed}:score/{split}" for seed in (1, 2) for split in ("validation", "test")),
    }
    assert all(reason.endswith(": a faulty GPU") for reason in retried.values())
    assert "a faulty GPU" in lora(spec, "show", key[:10]).output
    with closing(sqlite3.connect(spec.parent / ".lora" / "state.db")) as index:
        assert index.execute("SELECT count(*) FROM attempts WHERE key = ?", (key,)).fetchone() == (1,)


def test_an_unknown_name_is_told(spec: Path) -> None:
    found = lora(spec, "rm", "rank/r=5")
    assert (found.exit_code, 'did you mean "rank/r=' in found.output) == (1, True)


def test_what_is_accepted_is_reused_with_all_that_was_made_from_it(spec: Path) -> None:
    address, reason = "rank/r=4/seed=1:train", "the new schedule is the old one"
    spec.write_text(STUDY + "[train]\nwarmup_steps = 1\n", encoding="utf-8")
    assert actions(spec)[address] is Action.RUN
    refused = lora(spec, "accept", "data/train:prepare", address, "--spec", str(spec), "--reason", "x")
    assert (refused.exit_code, "cannot be equivalent" in refused.output) == (1, True)
    done = lora(spec, "accept", address, address, "--spec", str(spec), "--reason", reason)
    assert done.exit_code == 0, done.output
    now = plan(spec)
    mine = {change.address: change for change in now.changes if change.address.startswith("rank/r=4/seed=1:")}
    assert {change.action for change in mine.values()} == {Action.REUSE}
    assert len(mine) == 1 + 4 + 2
    assert reason in mine[address].reason
    assert any(reason in warning for warning in now.warnings), "the report tells it"
    assert actions(spec)["rank/r=4/seed=2:train"] is Action.RUN
    assert reason in lora(spec, "show", address).output


def test_nothing_is_made_anew_under_an_accepted_key(spec: Path) -> None:
    """It would be the new settings' result under the old settings' key."""
    address, state = "rank/r=4/seed=1:train", spec.parent / ".lora"
    spec.write_text(STUDY + "[train]\nwarmup_steps = 1\n", encoding="utf-8")
    lora(spec, "accept", address, address, "--spec", str(spec), "--reason", "equal")
    lora(spec, "rm", "rank/r=4/seed=1:predict/*", "--yes")
    for object_ in (state / "objects").rglob("*"):
        if object_.is_file() and object_.stat().st_size == 64 * 50:
            object_.unlink()
    changes = {change.address: change for change in plan(spec).changes}
    assert changes[address].action is Action.BLOCKED
    assert "--withdraw" in changes[address].reason
    assert changes["rank/r=4/seed=1:predict/test/likelihood"].action is Action.BLOCKED
    key = changes[address].reason.split()[-2]
    assert lora(spec, "accept", address, key, "--withdraw").exit_code == 0
    assert actions(spec)[address] is Action.RUN
