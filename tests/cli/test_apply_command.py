"""What `lora apply` says while it works and at its end, and the exit codes by which a script tells how it ended."""

import io
import json
import re
from pathlib import Path

import pytest
from command_fixture import lora
from rich.console import Console

from lorafile.cli.progress import Bars
from lorafile.study.study import Study

pytest.importorskip("torch")
SWEEP = '[[sweep]]\nname = "rank"\nlora.r = [2, 4]\n'


@pytest.fixture
def two_ranks(spec_file: Path) -> Path:
    spec_file.write_text(spec_file.read_text(encoding="utf-8") + SWEEP, encoding="utf-8")
    return spec_file


def test_json_is_an_event_a_line_and_ends_with_the_best_figure(two_ranks: Path) -> None:
    here = two_ranks.parent
    assert lora("apply", "--json", cwd=here).returncode == 64, "it asks no question"
    told = lora("apply", "--json", "--yes", cwd=here)
    assert told.returncode == 0, told.stderr
    events = [json.loads(line) for line in told.stdout.splitlines()]
    first, last = events[0], events[-1]
    assert (first["event"], first["format_version"], last["event"]) == ("plan", "1.0", "result")
    ended = [event for event in events if event["event"] == "end"]
    study = Study.load(two_ranks, here / ".lora")
    assert {event["key"] for event in ended} == {change.key for change in study.plan().changes}
    assert {event["outcome"] for event in ended} == {"done"}
    losses = [event["loss"] for event in events if event["event"] == "progress" and "loss" in event]
    assert losses
    assert (last["exit_code"], last["left"]) == (0, 0)
    means = study.results().groupby("configuration")[["validation.log_loss", "test.log_loss"]].mean()
    chosen = means["validation.log_loss"].idxmin()
    assert last["best"]["configuration"] == chosen
    assert last["best"]["mean"] == pytest.approx(means["test.log_loss"][chosen])
    assert bool(last["best"]["chosen_on"]) == (chosen != means["test.log_loss"].idxmin())
    again = lora("apply", "--yes", cwd=here)
    assert again.stdout.endswith("Next: lora report study.toml\n")


def test_a_budget_that_ends_it_is_exit_code_7_and_says_what_is_left(two_ranks: Path) -> None:
    told = lora("apply", "--yes", "--max-hours", "0.000001", cwd=two_ranks.parent)
    assert told.returncode == 7, told.stdout + told.stderr
    total = re.search(r"Plan: (\d+) to run", told.stdout)
    assert total is not None
    assert f"{total[1]} of {total[1]} nodes (3 prepare, 4 train" in told.stdout


def test_a_saved_plan_whose_target_is_gone_is_stale(two_ranks: Path) -> None:
    here = two_ranks.parent
    assert lora("plan", "--target", "rank/r=4", "--out", "plan.json", cwd=here).returncode == 0
    two_ranks.write_text(two_ranks.read_text(encoding="utf-8").replace("[2, 4]", "[2, 8]"), encoding="utf-8")
    told = lora("apply", "plan.json", cwd=here)
    assert told.returncode == 5
    assert "rank/r=4" in told.stderr
    assert lora("plan", "--target", "rank/r=4", cwd=here).returncode == 1, "typed, it is a mistake of the user's"


def test_a_report_of_nothing_finished_is_one_sentence_and_no_file(two_ranks: Path) -> None:
    here = two_ranks.parent
    before = set(here.iterdir())
    told = lora("report", cwd=here)
    assert told.returncode == 1
    assert told.stderr.count("\n") == 1
    assert "lora apply study.toml" in told.stderr
    assert set(here.iterdir()) == before


def test_the_bars_of_a_terminal_fit_eighty_columns(two_ranks: Path) -> None:
    """Long names and large numbers: elapsed time, steps, loss and tokens a second all stay whole."""
    text = two_ranks.read_text(encoding="utf-8")
    two_ranks.write_text(text.replace('"rank"', '"a-sweep-with-a-name-that-is-shortened"'), encoding="utf-8")
    plan = Study.load(two_ranks, two_ranks.parent / ".lora").plan()
    out = Console(width=80, file=io.StringIO())
    train = next(change for change in plan.work if change.kind == "train")
    progress = {"step": 1200, "steps": 1200, "loss": 1.23456, "tokens_per_second": 12345.6}
    bars = Bars(plan, out)
    bars.on_node_start(plan.graph.nodes[train.key])
    bars.on_node_progress(plan.graph.nodes[train.key], progress)
    with out.capture() as captured:
        out.print(bars.bars.get_renderable())
    lines = captured.get().splitlines()
    assert max(map(len, lines)) <= 80
    row = next(line for line in lines if "…" in line)
    assert re.search(r":train +\S+ 0:00:0\d 1200/1200  loss 1\.235  12,346 tokens/s$", row.rstrip()), row
