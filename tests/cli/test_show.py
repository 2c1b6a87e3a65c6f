"""`lora show`, and runs that are seen while they train."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
from command_fixture import lora

pytest.importorskip("torch")

from lorafile import Study
from lorafile.analysis.registry import analyses
from lorafile.cli.views.console import console
from lorafile.cli.views.show import curve_line, show_history, sparkline
from lorafile.errors import LoraError
from lorafile.graph.graph import GraphNode
from lorafile.plan.names import names_of
from lorafile.plan.plan import Plan
from lorafile.results.results import Results
from lorafile.state import Attempt, State
from lorafile.state.names import find_node
from lorafile.state.node_details import History, history

LONG = '[[sweep]]\nname = "rank"\nlora.r = [4]\ntrain.max_steps = [60]\n'
RUN = "rank/r=4,max_steps=60/seed=1"


def seen(state: State, name: str) -> History:
    return history(state, find_node(names_of(state), name))


class Onlooker:
    """Looks at state and report as others would, when a run has come some way."""

    def __init__(self, spec_file: Path) -> None:
        self.spec_file = spec_file
        self.history: History | None = None
        self.results: Results | None = None
        self.reason = ""

    def on_node_start(self, node: GraphNode) -> None:
        """Nothing to do."""

    def on_node_progress(self, node: GraphNode, progress: dict[str, Any]) -> None:
        state = self.spec_file.parent / ".lora"
        if node.kind == "train" and progress.get("step", 0) >= 15 and self.results is None:
            found = seen(State.read(state), RUN)
            if found.curve:
                self.history = found
                self.results = Study.load(self.spec_file, state).gather()
                plan = Study.load(self.spec_file, state).plan()
                self.reason = next(change.reason for change in plan.changes if change.kind == "train")

    def on_node_end(self, node: GraphNode, attempt: Attempt) -> None:
        """Nothing to do."""

    def on_stop(self, times: int) -> None:
        """Nothing to do."""

    def on_next_stage(self, plan: Plan) -> None:
        """Nothing to do."""


@pytest.fixture
def applied(spec_file: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Onlooker]:
    """A study of one run that takes some seconds, applied while somebody looked."""
    monkeypatch.setattr("lorafile.study.study.os.cpu_count", lambda: 1)
    text = spec_file.read_text(encoding="utf-8").replace("seeds = [1, 2]", "seeds = [1]")
    # Full attention over long batches: slow enough to be looked at.
    text = text.replace("[evaluate]", "gradient_accumulation_steps = 8\n[evaluate]")
    spec_file.write_text(text + LONG, encoding="utf-8")
    onlooker = Onlooker(spec_file)
    Study.load(spec_file, spec_file.parent / ".lora").apply(workers=1, watchers=[onlooker])
    return spec_file.parent, onlooker


def test_a_run_is_seen_while_it_trains(applied: tuple[Path, Onlooker]) -> None:
    here, onlooker = applied
    assert onlooker.history is not None
    assert onlooker.results is not None
    live = onlooker.history
    assert (live.standing, live.kind) == ("running", "train")
    assert live.settings["adapter"]["r"] == 4
    assert 0 < len(live.curve) < 60
    assert onlooker.reason.startswith("another apply is training it, at step ")
    assert "of 60" in curve_line(live)
    results = onlooker.results
    (run,) = results.runs.to_dict("records")
    assert run["outcome"] == "running"
    assert run["message"].startswith("at step ")
    assert len(results.curves) >= len(live.curve)
    assert results.configurations["done"].tolist() == [0]
    (curves,) = [analysis for analysis in analyses(results, []) if analysis.kind == "curves"]
    assert any(
        sentence.startswith("Still training: rank/r=4,max_steps=60 (seed 1, at step ") for sentence in curves.sentences
    )
    assert not any("The final training loss" in sentence for sentence in curves.sentences)
    drawn = json.dumps(curves.charts["curves"].to_dict())
    assert "running" in drawn
    finished = seen(State.read(here / ".lora"), RUN)
    assert (finished.standing, len(finished.curve)) == ("done", 60)
    assert finished.curve[: len(live.curve)] == live.curve, "what was seen is what was kept"


def test_a_node_is_shown_with_everything_that_is_known_of_it(applied: tuple[Path, Onlooker]) -> None:
    here, _ = applied
    told = lora("show", RUN, cwd=here)
    assert told.returncode == 0, told.stderr
    for words in (
        f"{RUN}:train  done",
        "adapter.r = 4",
        "training.max_steps = 60",
        "reads train: data/train:prepare",
        "steps = 60",
        "adapter_model.safetensors",
        "made with: device cpu",
        "step 60 (done)",
    ):
        assert words in told.stdout
    assert any(block in told.stdout for block in "▁▂▃▄▅▆▇█")
    found = json.loads(lora("show", f"{RUN}:score/test", "--json", cwd=here).stdout)
    assert (found["format_version"], found["kind"], found["standing"]) == ("1.0", "score", "done")
    assert found["attempts"][0]["figures"]["log_loss"] > 0
    assert found["inputs"]["likelihood"]["address"] == f"{RUN}:predict/test/likelihood"
    by_key = json.loads(lora("show", found["key"][:12], "--json", cwd=here).stdout)
    assert by_key == found


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("rank/r=5,max_steps=60/seed=1", f'did you mean "{RUN}:'),
        ("rank", "matches several nodes; pass one of them: "),
        ("data", "data/test:prepare, data/train:prepare, data/validation:prepare"),
    ],
)
def test_a_name_that_is_none_or_several_is_said(applied: tuple[Path, Onlooker], name: str, words: str) -> None:
    with pytest.raises(LoraError) as error:
        seen(State.read(applied[0] / ".lora"), name)
    assert words in str(error.value)


def test_an_empty_state_says_so(tmp_path: Path) -> None:
    told = lora("show", "anything", cwd=tmp_path)
    assert told.returncode == 1
    assert "This state has no nodes yet" in told.stderr


def test_failures_and_notes_are_shown(capsys: pytest.CaptureFixture[str]) -> None:
    figures = {"notes": ["Resumes from step 7 of 9."], "final_loss": math.nan}
    attempt = Attempt("k" * 64, "train", "diverged", "Training diverged: no number.", figures=figures)
    curve = [{"step": 1, "loss": 4.0}, {"step": 2, "loss": math.nan}]
    show_history(History("k" * 64, "train", "a:train", [], 1, {}, {}, [attempt], curve, None), console())
    told = capsys.readouterr().out
    for words in ("diverged", "Training diverged: no number.", "note: Resumes from step 7 of 9.", "declared by: none"):
        assert words in told


def test_a_sparkline_is_means_of_equal_stretches() -> None:
    assert sparkline([0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0]) == "▁▂▃▄▅▆▇█"
    assert sparkline([0.0, 0.0, 14.0, 0.0], width=2) == "▁█"
    assert sparkline([1.0, math.nan, 1.0]) == "▁×▁"
    assert len(sparkline([1.0] * 1000)) == 60
