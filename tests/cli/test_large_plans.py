"""Plans of many configurations: told by sweep and reason, with the nearest finished run, as readable as small ones."""

import io
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from lorafile.apply.work_groups import read_digests
from lorafile.cli.main import main
from lorafile.cli.views.console import console
from lorafile.cli.views.plan import show_plan
from lorafile.environment import device_class, environment
from lorafile.plan.drift import Nearest, flat
from lorafile.state import Attempt, Node, State
from lorafile.study.study import Study

SPEC = """
[study]
name = "many"
seeds = [1]
[model]
path = "builtin:facts-llama"
[data]
path = "builtin:facts"
[evaluate]
metrics = ["log_loss"]
[profile]
enabled = false
[[sweep]]
name = "rank"
lora.r = {ranks}
[[sweep]]
name = "drop"
lora.lora_dropout = {dropouts}
"""


def written(folder: Path, ranks: int, dropouts: int) -> Path:
    file = folder / "study.toml"
    values = {"ranks": list(range(1, ranks + 1)), "dropouts": [number / 100 for number in range(1, dropouts + 1)]}
    file.write_text(SPEC.format(**values), encoding="utf-8")
    return file


def finish(file: Path, state: Path, but: str = "") -> None:
    """Record every node as done; `but` diverged."""
    graph, done = Study.load(file, state).plan().graph, dict[str, Attempt]()
    with State.write(state) as store:
        for node in graph.nodes.values():
            outcome = "diverged" if but and node.address.startswith(but) and node.kind == "train" else "done"
            about = (node.key, node.kind, outcome, "", "", 1.0, device_class(), environment())
            attempt = Attempt(*about, {}, read_digests(node, done), "many", node.address)
            made = Node(node.key, node.kind, node.version, node.settings, node.inputs)
            done[node.key] = store.record(made, attempt, {})
        store.declare("many", {node.address: (node.key, node.kind) for node in graph.nodes.values()})


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The finished study of ranks 1 to 8."""
    folder = tmp_path_factory.mktemp("many")
    finish(written(folder, 8, 1), folder / "state")
    yield folder


def plan(file: Path, state: Path, *options: str) -> list[str]:
    done = CliRunner().invoke(main, ["plan", str(file), "--state", str(state), *options])
    assert done.exit_code == 0, done.output
    return done.output.splitlines()


def test_a_big_plan_is_one_line_for_each_sweep_and_reason(small: Path, tmp_path: Path) -> None:
    lines = plan(written(tmp_path, 48, 30), small / "state")
    told = [line for line in lines if line.startswith("  + ")]
    assert [line.split("  (")[0].strip() for line in told] == ["+ rank: 40 configurations", "+ drop: 29 configurations"]
    assert "(40 train, 80 predict, 80 score)" in told[0]
    assert "such as rank/r=9: new: r 8 → 9, compared with rank/r=8" in told[0]
    assert len(lines) < 40


def test_a_small_plan_names_every_configuration(small: Path, tmp_path: Path) -> None:
    lines = plan(written(tmp_path, 10, 2), small / "state")
    names = [line.split("  (")[0].strip() for line in lines if line.startswith("  + ")]
    assert names == ["+ rank/r=9", "+ rank/r=10", "+ drop/lora_dropout=0.02"]


def test_full_names_every_node(small: Path, tmp_path: Path) -> None:
    file = written(tmp_path, 48, 30)
    lines = plan(file, small / "state", "--full")
    shown = {line.split("  ")[1].split(maxsplit=1)[1] for line in lines if line.startswith(("  + ", "  = "))}
    assert shown == {node.address for node in Study.load(file, small / "state").plan().graph.nodes.values()}


def test_what_is_no_longer_declared_is_told_together(small: Path, tmp_path: Path) -> None:
    lines = plan(written(tmp_path, 1, 1), small / "state")
    told = [line for line in lines if line.startswith("  - ")]
    assert told == [
        "  - rank: 35 nodes  (7 train, 14 predict, 14 score)  undeclared: no longer in the spec; result kept"
    ]


def test_what_never_had_a_result_is_not_said_to_be_kept(tmp_path: Path) -> None:
    """An apply that was killed had declared the whole study, and finished a part of it."""
    file = written(tmp_path, 4, 1)
    nodes = Study.load(file, tmp_path / "state").plan().graph.nodes.values()
    with State.write(tmp_path / "state") as store:
        store.declare("many", {node.address: (node.key, node.kind) for node in nodes})
    assert plan(written(tmp_path, 4, 1), tmp_path / "state")
    lines = plan(written(tmp_path, 1, 1), tmp_path / "state")
    assert not [line for line in lines if line.startswith("  - ") or "undeclared" in line]


def test_what_divergence_blocks_is_told_together(tmp_path: Path) -> None:
    file = written(tmp_path, 8, 1)
    finish(file, tmp_path / "state", but="rank/")
    told = [line for line in plan(file, tmp_path / "state") if line.startswith("  x ")]
    assert len(told) == 1
    assert told[0].startswith("  x rank: 32 nodes  (16 predict, 16 score)  blocked: such as rank/r=1/seed=1:predict")


def test_the_nearest_is_what_looking_at_every_pair_says(small: Path, tmp_path: Path) -> None:
    """Fewest settings that differ; of several, the one whose numbers are nearest as ratios."""
    state = State.read(small / "state")
    done = Nearest.of(state, "train")
    for node in Study.load(written(tmp_path, 30, 6), small / "state").plan().graph.nodes.values():
        if node.kind == "train" and node.key not in done.keys:
            wanted = flat(node)
            counts = [sum(wanted.get(n) != one.get(n) for n in wanted.keys() | one.keys()) for one in done.flats]
            nearest = done.reason(wanted).rpartition(", compared with ")[2]
            assert counts[done.addresses.index(f"{nearest}/seed=1:train")] == min(counts)


def test_where_a_search_would_take_long_new_is_all_that_is_said(
    small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lorafile.plan.decide._MOST_COMPARED", 20)
    changes = Study.load(written(tmp_path, 12, 1), small / "state").plan().changes
    reasons = [change.reason for change in changes if change.kind == "train" and change.action == "run"]
    assert [reason.endswith(", compared with rank/r=8") for reason in reasons] == [True, True, False, False]
    assert reasons[2:] == ["new", "new"]


def shown(spec: Path, state: Path, width: int) -> list[str]:
    """Return the lines of a plan on a terminal of so many characters."""
    out = console()
    out._force_terminal, out.width, out.file = True, width, io.StringIO()
    with out.capture() as captured:
        show_plan(Study.load(spec, state).plan(), out)
    return re.sub("\x1b[^m]*m", "", captured.get()).splitlines()


@pytest.mark.parametrize("width", [80, 120, 160])
def test_no_word_of_a_plan_is_cut(small: Path, tmp_path: Path, width: int) -> None:
    """Every word stands in the plan as it is off a terminal, too; only names of configurations are shortened."""
    file = written(tmp_path, 12, 4)
    whole = set(" ".join(plan(file, small / "state")).split())
    lines = shown(file, small / "state", width)
    assert max(map(len, lines)) <= width
    words = {word for line in lines for word in line.split()} - {"A", "wider", "terminal", "also", "shows:"}
    assert {word.rstrip(",") for word in words if "…" not in word} <= {word.rstrip(",") for word in whole}


def test_long_names_are_shortened_in_the_middle_and_stay_apart(tmp_path: Path) -> None:
    file = written(tmp_path, 1, 3)
    text = file.read_text(encoding="utf-8").replace(
        'name = "drop"', 'name = "a-sweep-with-quite-a-long-name-of-its-own-as-people-write-them-for-themselves"'
    )
    file.write_text(text, encoding="utf-8")
    table = [line for line in shown(file, tmp_path / "none", 80) if "…" in line]
    assert [line.split()[0].rpartition("…")[2][-17:] for line in table] == [
        f"lora_dropout=0.0{number}" for number in (1, 2, 3)
    ]


def test_a_plan_has_the_order_of_the_spec(spec_file: Path, tmp_path: Path) -> None:
    """The baseline needs no training, and is done first; it is shown where it was declared."""
    sweeps = '[[sweep]]\nname = "rank"\nlora.r = [8, 2]\n[[sweep]]\nname = "base"\nmethod = ["full", "none"]\n'
    spec_file.write_text(spec_file.read_text(encoding="utf-8") + sweeps, encoding="utf-8")
    names = ["rank/r=8", "rank/r=2", "base/method=full", "base/method=none"]
    lines = [line for line in plan(spec_file, tmp_path / "none") if "prepare" not in line]
    assert [line.split()[1] for line in lines if line.startswith("  + ")] == names
    assert [name for line in lines for name in names if line.startswith(name)] == names


def test_a_walk_that_is_given_up_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("torch")
    monkeypatch.setattr("lorafile.plan.forecast.forecasts._WALKED_FROM", 1)
    monkeypatch.setattr("lorafile.plan.forecast.meta_device._PATIENCE", 0.01)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    lines = plan(written(tmp_path, 1, 1), tmp_path / "none", "--gpu", "24GB")
    assert any("tracing the model was abandoned" in line and "rank/r=1" in line for line in lines)
