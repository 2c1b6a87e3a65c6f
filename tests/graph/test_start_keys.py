"""`train.from` in the graph: which run reads which, what that does to keys, and what cannot be started from."""

from pathlib import Path

import pytest
from spec_fixture import BASIC

from lorafile.errors import SpecError
from lorafile.graph.build import build, build_candidates
from lorafile.graph.graph import Graph
from lorafile.lock.lockfile import resolve
from lorafile.specs import load
from lorafile.study.validation import check

pytest.importorskip("torch")

CHAIN = """
[[sweep]]
name = "task"
configurations = [
  { name = "second", train = { from = "task/first" } },
  { name = "first", lora = { r = 4 } },
  { name = "third", train = { from = "task/second", learning_rate = 1e-3 } },
]
"""


class Studies:
    """Specs that end as a test says, on the two-layer model."""

    def __init__(self, folder: Path, model: Path, rows: Path) -> None:
        self.file = folder / "study.toml"
        self.text = BASIC.format(model=model, data=rows) + "\n[lora]\nr = 4\n"

    def graph(self, more: str, *changes: tuple[str, str]) -> Graph:
        text = self.text + more
        for old, new in changes:
            assert old in text
            text = text.replace(old, new)
        self.file.write_text(text, encoding="utf-8")
        spec = load(self.file)
        return build(spec, resolve(spec, None)[0])

    def message(self, more: str, *changes: tuple[str, str]) -> str:
        with pytest.raises(SpecError) as caught:
            self.graph(more, *changes)
        assert len(caught.value.problems) == 1, caught.value.problems
        assert caught.value.problems[0].line > 1
        return caught.value.problems[0].message


@pytest.fixture
def studies(tmp_path: Path, tiny_model: Path, rows_file: Path) -> Studies:
    return Studies(tmp_path, tiny_model, rows_file)


def train_keys(graph: Graph) -> dict[str, str]:
    return {node.address: node.key for node in graph.nodes.values() if node.kind == "train"}


def test_a_run_reads_the_run_of_its_own_seed(studies: Studies) -> None:
    graph = studies.graph(CHAIN)
    keys = train_keys(graph)
    for seed in (1, 2):
        for name, source in (("second", "first"), ("third", "second")):
            node = graph.nodes[keys[f"task/{name}/seed={seed}:train"]]
            assert node.inputs["start"] == keys[f"task/{source}/seed={seed}:train"]
        assert "start" not in graph.nodes[keys[f"task/first/seed={seed}:train"]].inputs
    order = list(graph.nodes)
    assert all(order.index(read) < order.index(key) for key in order for read in graph.nodes[key].inputs.values())


def test_keys_follow_the_source_and_not_its_name(studies: Studies) -> None:
    before = train_keys(studies.graph(CHAIN))
    renamed = train_keys(studies.graph(CHAIN, ("first", "base")))
    assert set(before.values()) == set(renamed.values())
    alone = train_keys(studies.graph('[[sweep]]\nname = "task"\nlora.r = [4]\n'))
    assert alone["task/r=4/seed=1:train"] == before["task/first/seed=1:train"]
    other = train_keys(studies.graph(CHAIN, ('"first", lora = { r = 4 }', '"first", train = { learning_rate = 3e-3 }')))
    assert not set(before.values()) & set(other.values()), "what follows another run is another run"


def test_a_start_of_its_own_has_no_place_in_its_key(studies: Studies) -> None:
    gaussian = ("r = 4\n\n", 'r = 4\ninit_lora_weights = "gaussian"\n\n')
    settings = [
        next(node.settings["adapter"] for node in graph.nodes.values() if node.address == "task/second/seed=1:train")
        for graph in (studies.graph(CHAIN), studies.graph(CHAIN, gaussian))
    ]
    assert settings[0] == settings[1]
    assert "init_lora_weights" not in settings[0]


def test_a_seed_of_a_later_stage_trains_what_it_starts_from(studies: Studies) -> None:
    stage = '[verdict]\nkeep = 0.2\n[[stage]]\nconfigurations = ["task/third"]\nseeds = [7]\n'
    keys = train_keys(studies.graph(CHAIN + stage))
    assert {f"task/{name}/seed=7:train" for name in ("first", "second", "third")} < keys.keys()


def test_repeats_start_from_the_same_run(studies: Studies) -> None:
    graph = studies.graph(CHAIN, ("seeds = [1, 2]", "seeds = [1, 2]\nrepeats = 2"))
    keys = train_keys(graph)
    again = graph.nodes[keys["task/second/seed=1/repeat=2:train"]]
    assert again.inputs["start"] == keys["task/first/seed=1:train"]


TUNED = """
[[sweep]]
name = "task"
configurations = [
  { name = "second", train = { from = "SOURCE", learning_rate = { tune = [1e-3, 1e-2] } } },
  { name = "first", train = { learning_rate = { tune = [2e-3, 2e-2] } } },
  { name = "fixed" },
]
"""


def test_candidates_start_as_their_configuration_does(studies: Studies) -> None:
    for source in ("task/fixed", "task/first,learning_rate=0.02"):
        graph = studies.graph(TUNED, ("SOURCE", source))
        trials = build_candidates(graph.spec, graph.lock, {})
        assert set(trials.nodes) <= set(graph.nodes)
        keys = train_keys(trials)
        for rate in ("0.001", "0.01"):
            node = trials.nodes[keys[f"task/second,learning_rate={rate}/seed=2:train"]]
            assert node.inputs["start"] == keys[f"{source}/seed=2:train"]


def test_another_name_of_a_configuration_will_do(studies: Studies) -> None:
    alias = '[[sweep]]\nname = "again"\nlora.r = [4]\n'
    graph = studies.graph(CHAIN + alias, ("task/first", "again/r=4"))
    keys = train_keys(graph)
    assert graph.nodes[keys["task/second/seed=1:train"]].inputs["start"] == keys["task/first/seed=1:train"]


PAIR = """
[[sweep]]
name = "task"
configurations = [
  { name = "first", FIRST },
  { name = "second", SECOND, train = { from = "task/first" } },
]
"""
R = "lora = { r = 4 }"
WRONG = {
    "rank": ((R, "lora = { r = 8 }"), "lora.r is 8 here and 4 there"),
    "scale": ((R, "lora = { lora_alpha = 4 }"), "lora.lora_alpha is 4 here and 8 there"),
    "targets": (
        (R, 'lora = { target_modules = ["q_proj"] }'),
        "lora.target_modules is q_proj here and down_proj, g",
    ),
    "rslora": ((R, "lora = { use_rslora = true }"), "lora.use_rslora is True here and unset there"),
    "pissa": (
        ('lora = { init_lora_weights = "pissa" }', R),
        "lora.r is 4 here and 8 there",
    ),
    "eva": (('lora = { init_lora_weights = "eva" }', R), "set lora.eva_config.rho = 1 for it"),
    "mica": ((R, 'lora = { init_lora_weights = "mica" }'), "the adapter is that of another configuration"),
    "quantization": ((R, 'quantization = "nf4"'), 'quantization is "nf4" here and "none" there'),
    "dtype": ((R, 'model = { dtype = "bfloat16" }'), 'model.dtype is "bfloat16" here and "float32" there'),
    "method": ((R, 'method = "loha"'), 'method is "loha" here and "lora" there'),
    "adalora": (('method = "adalora"', 'method = "adalora"'), "a trained AdaLoRA has given up ranks"),
    "model": ((R, 'model = { path = "builtin:facts-llama" }'), 'model.path is "builtin:facts-llama" here and "'),
    "untuned": (('method = "none"', R), '"task/first" is the untuned model and has no adapter to start from'),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_cannot_be_loaded_is_refused_with_the_setting_that_differs(studies: Studies, name: str) -> None:
    (first, second), expected = WRONG[name]
    assert expected in studies.message(PAIR, ("FIRST", first), ("SECOND", second))


def test_a_rewritten_base_is_started_from_at_the_rank_it_is_stored_with(studies: Studies) -> None:
    stored = "lora = { r = 8 }"
    graph = studies.graph(PAIR, ("FIRST", 'lora = { init_lora_weights = "pissa" }'), ("SECOND", stored))
    assert "task/second/seed=1:train" in train_keys(graph)


NAMES = {
    (
        'from = "task/first"',
        'from = "task/frist"',
    ): 'there is no configuration named "task/frist"; did you mean "',
    ('from = "task/first"', 'from = "task/second"'): '"task/second" would start from itself',
    ("{ r = 4 } }", '{ r = 4 }, train = { trainer = "mine" } }'): '"task/first" is trained by [trainer.mine]; only',
}


@pytest.mark.parametrize("change", NAMES, ids=str)
def test_a_name_that_cannot_be_started_from_is_refused_where_it_stands(
    studies: Studies, change: tuple[str, str]
) -> None:
    (studies.file.parent / "train.py").write_text("", encoding="utf-8")
    trainer = '[trainer.mine]\ncommand = ["python", "train.py"]\n'
    chain = "\n".join(line for line in CHAIN.splitlines() if "third" not in line)
    assert NAMES[change] in studies.message(trainer + chain, change)


def test_a_study_of_one_configuration_has_none_to_start_from(studies: Studies) -> None:
    one = '[[sweep]]\nname = "task"\nconfigurations = [{ name = "one", train = { from = "other" } }]\n'
    assert studies.message(one) == 'there is no configuration named "other"; the study has no other one'


def test_a_circle_is_refused(studies: Studies) -> None:
    with pytest.raises(SpecError) as caught:
        studies.graph(CHAIN, ("{ r = 4 } }", '{ r = 4 }, train = { from = "task/third" } }'))
    assert len(caught.value.problems) == 3
    assert "would start from each other in a circle" in caught.value.problems[0].message


MISTAKES = """
[[sweep]]
name = "task"
configurations = [
  { name = "second", lora = { r = 8 }, train = { from = "task/first" } },
  { name = "first" },
  { name = "third", train = { from = "task/first" } },
  { name = "wrong", lora = { target_modules = ["nothing"] } },
]
"""


def test_each_mistake_is_named_once_where_runs_follow_runs(studies: Studies) -> None:
    studies.file.write_text(studies.text + MISTAKES, encoding="utf-8")
    _, told, _ = check(studies.file)
    assert len(told) == 2, told
    assert "lora.r is 8 here and 4 there" in told[0]
    assert "nothing" in told[1]


def test_a_tuned_configuration_is_no_start_but_its_candidate_is(studies: Studies) -> None:
    message = studies.message(TUNED, ("SOURCE", "task/first"))
    assert message.endswith('name one of them, such as "task/first,learning_rate=0.002"')


def test_a_program_starts_from_nothing(studies: Studies) -> None:
    (studies.file.parent / "train.py").write_text("", encoding="utf-8")
    trainer = '[trainer.mine]\ncommand = ["python", "train.py"]\n'
    change = ('from = "task/second"', 'from = "task/second", trainer = "mine"')
    assert "[trainer.mine] gets no adapter to start from" in studies.message(trainer + CHAIN, change)


def test_whole_models_and_heads_for_other_classes(studies: Studies, tmp_path: Path) -> None:
    rows = "".join(f'{{"text": "number {n}", "label": {n % 2}}}\n' for n in range(40))
    for name, words in (("a", ("yes", "no")), ("b", ("left", "right"))):
        file = rows.replace('"label": 0', f'"label": "{words[0]}"').replace('"label": 1', f'"label": "{words[1]}"')
        (tmp_path / f"{name}.jsonl").write_text(file, encoding="utf-8")
    heads = ('[data]\npath = "', '[data]\nformat = "classification"\npath = "')
    task = ("[model]\n", '[model]\ntask_type = "SEQ_CLS"\n')
    metric = ('metrics = ["log_loss"]\n', 'metrics = ["accuracy"]\n')
    pair = (PAIR, ("FIRST", 'data = { path = "a.jsonl" }'), ("SECOND", 'data = { path = "b.jsonl" }'))
    graph = studies.graph(*pair, heads, task, metric)
    settings = {node.address: node.settings for node in graph.nodes.values() if node.kind == "train"}
    assert settings["task/second/seed=1:train"]["start"] == {"head": "new"}
    assert "start" not in settings["task/first/seed=1:train"]
    for method in ("full", "head"):
        first, second = (f'method = "{method}", data = {{ path = "{name}.jsonl" }}' for name in "ab")
        wrong = studies.message(PAIR, ("FIRST", first), ("SECOND", second), heads, task, metric)
        assert "the head is kept, and its classes are left, right here and no, yes there" in wrong
