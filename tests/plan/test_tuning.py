"""Settings that are tuned: what a spec may say, what is chosen from which results, and what a plan does about it."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from command_fixture import lora
from spec_fixture import message

from lorafile import Study, specs
from lorafile.errors import SpecError
from lorafile.plan import equal_models, tuning
from lorafile.plan.plan import Plan
from lorafile.plan.tuning_status import TuningStatus, edge_lines
from lorafile.specs.configurations import Axis
from lorafile.specs.sweeps.tuning import next_value, with_choice
from lorafile.state import Attempt, Node, State

SPEC = """
[study]
name = "tuned"
seeds = [1, 2]
[model]
path = "builtin:facts-llama"
[data]
path = "builtin:facts"
[evaluate]
metrics = ["log_loss"]
[train]
learning_rate = { tune = [1e-4, 1e-3, 1e-2] }
[[sweep]]
name = "rank"
lora.r = [4, 8]
"""
EXTENDED = SPEC.replace("1e-2] }", "1e-2], extend = true }")
Losses = Callable[[str, int], float | str]


def parse(text: str) -> specs.Spec:
    return specs.parse('study.name = "s"\nmodel.path = "m"\ndata.path = "d"\n' + text, Path("s.toml"))


def candidates(text: str) -> dict[str, list[str]]:
    found = {c.name: c.tuned.candidates if c.tuned else () for c in parse(text).configurations}
    return {name: [one.name.removeprefix(name + ",") for one in tried] for name, tried in found.items()}


@pytest.fixture
def study(tmp_path: Path) -> Callable[[str], Study]:
    def make(text: str = SPEC) -> Study:
        (tmp_path / "study.toml").write_text(text, encoding="utf-8")
        return Study.load(tmp_path / "study.toml", tmp_path / ".lora")

    return make


def record(study: Study, loss: Losses, plan: Plan | None = None) -> None:
    """Finish what a plan would run, without running it: each run with the loss of its address, or an outcome."""
    plan = plan or study.plan()
    with State.write(study.state) as state:
        lost: set[str] = set()
        for change in plan.work:
            node = plan.graph.nodes[change.key]
            value = loss(node.address, node.seed or 0) if node.kind != "prepare" else 0.0
            if value == "missing" or lost & {*node.inputs.values()}:
                lost.add(node.key)
                continue
            outcome = value if isinstance(value, str) else "done"
            lost |= {node.key} if outcome != "done" else set()
            figures = {"examples": 9, "log_loss": value} if node.kind == "score" else {}
            about = {"address": node.address, "study": plan.study, "device": plan.device}
            attempt = Attempt(node.key, node.kind, outcome, figures=figures, **about)
            state.record(Node(node.key, node.kind, node.version, node.settings, node.inputs), attempt, {})


def rate_of(address: str) -> float:
    return float(address.split("learning_rate=")[1].split("/")[0]) if "learning_rate=" in address else 0.0


def bowl(best: float) -> Losses:
    """Return losses that are lowest at one rate, the same under every seed but for a little."""
    return lambda address, seed: abs(rate_of(address) - best) + seed / 1e6


def by_name(plan: Plan) -> dict[str, TuningStatus]:
    return {one.configuration: one for one in plan.tuning}


# What a spec says


def test_every_configuration_has_the_candidates_of_the_study() -> None:
    text = 'train.learning_rate = { tune = [1e-4, 1e-3] }\n[[sweep]]\nlora.r = [4, 8]\n[[sweep]]\nmethod = ["none"]'
    both = ["learning_rate=0.0001", "learning_rate=0.001"]
    assert candidates(text) == {"r/r=4": both, "r/r=8": both, "method/method=none": []}


def test_several_tuned_settings_multiply() -> None:
    text = "train.learning_rate = { tune = [1e-4, 1e-3] }\nlora.lora_dropout = { tune = [0.0, 0.1] }"
    assert len(candidates(text)["lora"]) == 4


def test_full_fine_tuning_keeps_its_own_rate_unless_it_is_tuned_itself() -> None:
    sweep = '[[sweep]]\nmethod = ["lora", "full"]\n'
    found = candidates("train.learning_rate = { tune = [1e-4, 1e-3] }\n" + sweep)
    assert (len(found["method/method=lora"]), found["method/method=full"]) == (2, [])
    found = candidates(
        "train.learning_rate = { tune = [1e-4, 1e-3] }\nfull.learning_rate = { tune = [1e-6, 1e-5] }\n" + sweep
    )
    assert found["method/method=full"] == ["learning_rate=1e-06", "learning_rate=1e-05"]
    assert len(candidates('method = "full"\ntrain.learning_rate = { tune = [1e-4, 1e-3] }')["full"]) == 2
    swept = '[[sweep]]\nname = "m"\nmethod = ["full"]\ntrain.learning_rate = { tune = [1e-4, 1e-3] }'
    assert len(candidates(swept)["m/method=full"]) == 2


def test_a_number_in_a_sweep_wins_over_the_candidates_of_the_study() -> None:
    text = "train.learning_rate = { tune = [1e-4, 1e-3] }\n[[sweep]]\ntrain.learning_rate = [1e-5]"
    assert candidates(text) == {"learning_rate/learning_rate=1e-05": []}


def test_a_point_by_hand_may_be_tuned_alone() -> None:
    rows = '{ name = "a", lora.r = { tune = [4, 8] } }, { name = "b", lora.r = 2 }'
    assert candidates(f'[[sweep]]\nname = "c"\nconfigurations = [{rows}]') == {"c/a": ["r=4", "r=8"], "c/b": []}


def test_a_setting_that_changes_nothing_is_not_tuned() -> None:
    text = 'train.loraplus_lr_ratio = { tune = [2.0, 4.0] }\n[[sweep]]\nmethod = ["lora", "ia3"]'
    assert {name: len(found) for name, found in candidates(text).items()} == {
        "method/method=lora": 2,
        "method/method=ia3": 0,
    }


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (
            'train.learning_rate = { tune = [1e-4, "x"] }',
            '4:39: train.learning_rate.tune[1]: should be a number, not "x"',
        ),
        ("train.learning_rate = { tune = [1e-4] }", "train.learning_rate.tune: needs at least two candidates"),
        ("train.learning_rate = { tune = 3 }", "should be a list of candidates, not 3"),
        ("train.learning_rate = { tune = [1, 1] }", "tune[1]: 1 is listed twice"),
        ("train.learning_rate = { tune = [1, 2], extnd = true }", 'extnd: unknown setting; did you mean "extend"?'),
        ("train.save_steps = { tune = [1, 2] }", "train.save_steps: cannot be tuned"),
        ("data.max_length = { tune = [32, 64] }", "data.max_length: cannot be tuned"),
        (
            "lora.r = { tune = [4, 8] }\n[[sweep]]\nmatch = 'parameters'\nlora.r = { tune = [2, 4] }",
            "which solves for it",
        ),
        ("[[sweep]]\nlora.r = [4, { tune = [8, 16] }]", "sweep[0].lora.r[1]: is one of several candidates"),
        ("lora.init_lora_weights = { tune = [true, 'gaussian'], extend = true }", "continues a range of numbers"),
        ("lora.init_lora_weights = { tune = [true, 'orthogonal'] }\nlora.r = 3", "needs an even rank, not 3"),
    ],
)
def test_a_mistake_in_what_is_tuned_is_told_where_it_stands(text: str, told: str) -> None:
    assert told in message(text)


@pytest.mark.parametrize(
    ("setting", "values", "above", "following"),
    [
        ("train.learning_rate", (1e-4, 1e-3), True, 1e-2),
        ("train.learning_rate", (1e-4, 3e-4, 1e-3), True, 3.3e-3),
        ("train.learning_rate", (1e-4, 3e-4, 1e-3), False, 3.3e-5),
        ("lora.r", (4, 16), True, 64),
        ("lora.r", (2, 8), False, 1),
        ("lora.r", (1, 4), False, None),
        ("lora.lora_dropout", (0.0, 0.05, 0.1), False, None),
        ("lora.lora_dropout", (0.0, 0.1), True, 0.2),
    ],
)
def test_a_range_is_continued_by_its_last_ratio(
    setting: str, values: tuple[float, ...], above: bool, following: float | None
) -> None:
    assert next_value(Axis(setting, "train", values, True, ()), above) == following


# What is planned and chosen


def test_candidates_are_judged_on_validation_alone_and_the_choice_is_waited_for(study: Callable[[str], Study]) -> None:
    plan = study(SPEC).plan()
    splits = {node.split for node in plan.graph.nodes.values() if node.kind in ("predict", "score")}
    assert splits == {"validation"}
    assert {change.kind for change in plan.work} == {"prepare", "train", "predict", "score"}
    assert sum(change.kind == "train" for change in plan.work) == 12
    assert by_name(plan)["rank/r=4"].later == {"predict": 2, "score": 2, "profile": 1}
    assert "6 of 6 runs of its 3 candidates" in by_name(plan)["rank/r=4"].why_open


def test_the_best_mean_over_seeds_is_chosen_and_nothing_is_trained_twice(study: Callable[[str], Study]) -> None:
    made = study(SPEC)
    before = {node.key for node in made.plan().graph.nodes.values() if node.kind == "train"}
    uneven = {(1e-4, 1): 0.1, (1e-4, 2): 0.9, (1e-3, 1): 0.4, (1e-3, 2): 0.4, (1e-2, 1): 0.8, (1e-2, 2): 0.2}
    record(made, lambda address, seed: uneven.get((rate_of(address), seed), 0.5))
    plan = made.plan()
    assert by_name(plan)["rank/r=4"].values == {"train.learning_rate": 1e-3}
    assert {change.kind for change in plan.work} == {"predict", "score", "profile"}
    assert {plan.graph.nodes[change.key].split for change in plan.work if change.kind == "predict"} == {"test"}
    assert {node.key for node in plan.graph.nodes.values() if node.kind == "train"} == before
    record(made, bowl(0), plan)
    assert made.plan().work == []


def test_where_more_is_better_the_highest_wins(study: Callable[[str], Study]) -> None:
    made = study(SPEC.replace("log_loss", "token_accuracy"))
    losses = bowl(1e-3)
    with State.write(made.state) as state:
        plan = made.plan()
        for change in plan.work:
            node = plan.graph.nodes[change.key]
            figures = {"examples": 9, "token_accuracy": 1 - float(losses(node.address, 0))}
            attempt = Attempt(node.key, node.kind, "done", figures=figures)
            state.record(Node(node.key, node.kind, node.version, node.settings, node.inputs), attempt, {})
    assert by_name(made.plan())["rank/r=8"].values == {"train.learning_rate": 1e-3}


def test_a_candidate_with_a_missing_run_leaves_the_choice_open(study: Callable[[str], Study]) -> None:
    made = study(SPEC)
    gap = "rank/r=4,learning_rate=0.01/seed=2:train"
    record(made, lambda address, seed: "missing" if address == gap else bowl(1e-3)(address, seed))
    standings = by_name(made.plan())
    assert standings["rank/r=8"].chosen
    assert "1 of 6 runs" in standings["rank/r=4"].why_open
    results = made.gather()
    waiting = results.runs[results.runs["configuration"] == "rank/r=4"]
    assert set(waiting["outcome"]) == {"missing"}
    assert "its learning_rate is not chosen yet" in waiting["message"].iloc[0]


def test_a_candidate_that_diverged_once_loses_and_stays_visible(study: Callable[[str], Study]) -> None:
    made = study(SPEC)

    def losses(address: str, seed: int) -> float | str:
        wild = rate_of(address) == 1e-2 and seed == 2
        return "diverged" if wild and address.endswith(":train") else bowl(1e-2)(address, seed)

    record(made, losses)
    standing = by_name(made.plan())["rank/r=4"]
    assert standing.values == {"train.learning_rate": 1e-3}
    assert standing.lost == {"rank/r=4,learning_rate=0.01": {"diverged": 1}}
    assert standing.edges == (), "a higher rate was tried, and lost"
    table = made.gather().candidates
    shown = table[(table["configuration"] == "rank/r=4") & (table["train.learning_rate"] == 1e-2)]
    assert list(shown["outcome"]) == ["done", "diverged"]
    assert list(shown["chosen"]) == [False, False]


def test_where_no_candidate_is_whole_the_fewest_lost_runs_win_and_it_is_said(study: Callable[[str], Study]) -> None:
    made = study(SPEC)

    def losses(address: str, seed: int) -> float | str:
        wild = seed == 2 or rate_of(address) != 1e-3
        return "diverged" if wild and address.endswith(":train") else 0.5

    record(made, losses)
    standing = by_name(made.plan())["rank/r=4"]
    assert (standing.values, standing.whole) == ({"train.learning_rate": 1e-3}, 0)
    assert "no candidate finished with every seed" in standing.choice


def test_a_best_value_at_the_edge_is_not_bracketed_and_the_next_is_named_for_all(study: Callable[[str], Study]) -> None:
    made = study(SPEC)
    record(made, lambda address, seed: bowl(1e-2 if "r=4" in address else 1e-3)(address, seed))
    (line,) = edge_lines(made.plan().tuning)
    assert line == (
        "Not bracketed: learning_rate of rank/r=4 is best at 0.01, the highest that was tried; next would be 0.1 for "
        "all 2 configurations that share its candidates: add it to tune, or set extend = true."
    )


def test_of_equal_means_an_inner_value_is_chosen(study: Callable[[str], Study]) -> None:
    made = study(SPEC)
    record(made, lambda _address, _seed: 0.5)
    assert by_name(made.plan())["rank/r=4"].values == {"train.learning_rate": 1e-3}


def test_extend_adds_the_same_values_for_all_until_the_best_is_inside(study: Callable[[str], Study]) -> None:
    made = study(EXTENDED)
    losses: Losses = lambda address, seed: bowl(0.1 if "r=4" in address else 1e-3)(address, seed)  # noqa: E731
    record(made, losses)
    plan = made.plan()
    added = [change for change in plan.work if change.kind == "train"]
    assert {change.configuration for change in added} == {"rank/r=4,learning_rate=0.1", "rank/r=8,learning_rate=0.1"}
    assert added[0].reason == (
        "learning_rate 0.1 was added, since rank/r=4 is best at 0.01, the highest that was tried"
    )
    assert not any(one.chosen for one in plan.tuning), "the choice of one waits for the candidates of all"
    record(made, losses)
    record(made, losses)
    standings = by_name(made.plan())
    assert standings["rank/r=4"].values == {"train.learning_rate": 0.1}
    assert {one.candidates for one in standings.values()} == {5}
    assert edge_lines(made.plan().tuning) == []


def test_extend_gives_up_after_four_values_and_says_so(study: Callable[[str], Study]) -> None:
    made = study(EXTENDED)
    for _ in range(8):
        record(made, lambda address, seed: -rate_of(address) + seed / 1e6)
    standing = by_name(made.plan())["rank/r=4"]
    assert (standing.candidates, standing.values) == (7, {"train.learning_rate": 100.0})
    (line,) = edge_lines(made.plan().tuning)
    assert "the plan already added 4 values there and adds no more" in line


def test_a_winner_has_the_identity_of_the_same_settings_written_out(study: Callable[[str], Study]) -> None:
    tuned = study(SPEC).spec
    written = parse("[train]" + SPEC.split("[train]")[1].replace("{ tune = [1e-4, 1e-3, 1e-2] }", "1e-3"))
    (first, _), (plain, _) = tuned.configurations, written.configurations
    winner = with_choice(first, "rank/r=4,learning_rate=0.001")
    assert (winner.train, winner.adapter, winner.name) == (plain.train, plain.adapter, plain.name)


def test_the_plan_tells_what_waits_and_its_json_too(study: Callable[[str], Study]) -> None:
    made = study(SPEC)
    out = lora("plan", made.spec.file, cwd=made.spec.file.parent).stdout
    assert "rank/r=4  (3 candidates: 6 train, 6 predict, 6 score)" in out
    assert "? rank/r=4  (2 predict, 2 score, 1 profile known after the choice)" in out
    found = json.loads(lora("plan", made.spec.file, "--json", cwd=made.spec.file.parent).stdout)
    first = found["tuning"][0]
    assert (first["configuration"], first["candidates"], first["chosen"]) == ("rank/r=4", 3, None)
    assert first["after_choice"] == {"predict": 2, "score": 2, "profile": 1}


def test_tuning_needs_a_validation_split(study: Callable[[str], Study], tmp_path: Path) -> None:
    rows = "".join(json.dumps({"prompt": f"{n} ?", "completion": " yes"}) + "\n" for n in range(40))
    (tmp_path / "rows.jsonl").write_text(rows, encoding="utf-8")
    held = 'path = "rows.jsonl"\nsplit = { train = 20, test = 10 }'
    with pytest.raises(SpecError, match=r"study.toml:13:1: train.learning_rate: is chosen on validation"):
        study(SPEC.replace('path = "builtin:facts"\n', held + "\n")).plan()


def test_the_example_tunes_over_the_runs_of_its_own_grid(tmp_path: Path) -> None:
    example = Path(__file__).parents[2] / "examples" / "rank-and-learning-rate" / "study.toml"
    plan = Study.load(example, tmp_path / ".lora").plan()
    assert sum(change.kind == "train" for change in plan.work) == 45, "3 ranks at 5 rates under 3 seeds"
    assert [one.configuration for one in plan.tuning] == ["tuned/r=1", "tuned/r=4", "tuned/r=16"]
    assert [one.later for one in plan.tuning] == [{}, {}, {}], "whatever is chosen, the grid has run it"


# What a plan costs


@pytest.mark.parametrize(
    ("text", "finished", "times"),
    [(SPEC.split("[train]")[0], False, 1), (SPEC, False, 1), (EXTENDED, False, 1), (SPEC, True, 2)],
    ids=["nothing is tuned", "nothing is chosen", "nothing is extended", "chosen"],
)
def test_a_graph_is_built_once_and_once_more_for_a_choice(
    study: Callable[[str], Study], monkeypatch: pytest.MonkeyPatch, text: str, finished: bool, times: int
) -> None:
    made = study(text)
    if finished:
        record(made, bowl(1e-3))
    built = []
    build = equal_models.build

    def counted(*arguments: object) -> object:
        built.append(arguments)
        return build(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(equal_models, "build", counted)
    monkeypatch.setattr(tuning, "build", counted)
    plan = made.plan()
    assert len(built) == times
    assert all(status.chosen for status in plan.tuning) is (finished or not plan.tuning)
