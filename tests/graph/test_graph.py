"""Identity: what changes a key, what must not, and the keys themselves."""

import json
from pathlib import Path

import pytest

from lorafile import specs
from lorafile.errors import LoraError, SpecError
from lorafile.graph.build import build
from lorafile.graph.graph import Graph
from lorafile.graph.splits import Rows, draw
from lorafile.lock.lockfile import Lock, resolve
from lorafile.specs.tables.data import SplitTable

SPEC = """
[study]
name = "golden"
seeds = [1, 2]
[model]
path = "builtin:facts-llama"
[data]
path = "builtin:facts"
[evaluate]
metrics = ["exact_match", "log_loss"]
[[sweep]]
name = "rank"
lora.r = [4, 8]
[[sweep]]
name = "baselines"
method = ["none", "full"]
"""


def graph(text: str = SPEC, lock: Lock | None = None) -> Graph:
    spec = specs.parse(text, Path("study.toml"))
    return build(spec, lock or resolve(spec, None)[0])


@pytest.fixture(scope="module")
def keys() -> set[str]:
    return set(graph().nodes)


@pytest.mark.parametrize(
    "change",
    [
        lambda text: "# a comment\n" + text,
        lambda text: text.replace('name = "golden"', 'name = "other"\nquestion = "why?"'),
        lambda text: text.replace('name = "rank"', 'name = "ranks"'),
        lambda text: text.replace("[4, 8]", "[8, 4]"),
        lambda text: text.replace("seeds = [1, 2]", "seeds = [2, 1]"),
        lambda text: text.replace(
            'metrics = ["exact_match", "log_loss"]', 'metrics = ["log_loss", "exact_match"]\nprimary = "log_loss"'
        ),
        lambda text: text + '[[analysis]]\nkind = "trend"\n',
        lambda text: text + '[[sweep]]\nname = "again"\nlora.r = [8]\nlora.lora_alpha = [16]\n',
        lambda text: (
            text + "[lora]\nlora_alpha = '2r'\ntarget_modules = ['attention', 'gate_proj', 'up_proj', 'down_proj']\n"
        ),
        lambda text: text + "[report]\ntitle = 'T'\n",
    ],
)
def test_what_changes_no_result_changes_no_key(keys: set[str], change: object) -> None:
    assert set(graph(change(SPEC)).nodes) == keys  # type: ignore[operator]


@pytest.mark.parametrize(
    ("more", "kinds"),
    [
        ("[train]\nlearning_rate = 1e-3\n", {"train", "predict", "score"}),
        ("[train]\nper_device_train_batch_size = 4\n", {"train", "predict", "score", "profile"}),
        ("[lora]\nlora_alpha = 5\n", {"train", "predict", "score"}),
        ("[data2]\n", None),
        ("[profile]\nsteps = 4\n", {"profile"}),
    ],
)
def test_what_changes_a_result_changes_its_key(keys: set[str], more: str, kinds: set[str] | None) -> None:
    if kinds is None:
        with pytest.raises(SpecError):
            graph(SPEC + more)
        return
    now = graph(SPEC + more)
    assert {now.nodes[key].kind for key in set(now.nodes) - keys} == kinds


def test_a_new_metric_scores_again_and_predicts_only_what_nobody_predicted(keys: set[str]) -> None:
    more = graph(SPEC.replace('["exact_match", "log_loss"]', '["exact_match", "log_loss", "token_accuracy"]'))
    assert {more.nodes[key].kind for key in set(more.nodes) - keys} == {"score"}
    fewer = graph(SPEC.replace('["exact_match", "log_loss"]', '["log_loss"]'))
    assert {fewer.nodes[key].kind for key in set(fewer.nodes) - keys} == {"score"}


def test_a_profile_leaves_out_seed_and_learning_rate() -> None:
    found = graph(SPEC + '[[sweep]]\nname = "rate"\ntrain.learning_rate = [1e-4, 1e-3]\n')
    profiles = [node.configuration for node in found.nodes.values() if node.kind == "profile"]
    assert profiles == [
        "rank/r=4",
        "rank/r=8",
        "baselines/method=none",
        "baselines/method=full",
        "rate/learning_rate=0.0001",
    ]


def test_the_untuned_row_has_one_replicate() -> None:
    assert [replicate.seed for replicate in graph().replicates["baselines/method=none"]] == [None]


def test_whole_seeds_come_first() -> None:
    seeds = [node.seed for node in graph().nodes.values() if node.kind == "train"]
    assert seeds == [1, 1, 1, 2, 2, 2]


def test_golden_keys() -> None:
    """An accidental change of identity would make everybody train everything again; so would a careless one here."""
    golden = json.loads((Path(__file__).parents[1] / "data" / "golden_keys.json").read_text(encoding="utf-8"))
    assert {node.address: node.key for node in graph().nodes.values()} == golden


def test_only_runs_that_accumulate_say_in_their_keys_how_examples_of_a_step_are_drawn() -> None:
    def protocols(text: str) -> set[object]:
        nodes = graph(text).nodes.values()
        return {node.settings["training"].get("accumulation_protocol") for node in nodes if node.kind == "train"}

    assert protocols(SPEC) == {None}
    accumulating = graph(SPEC + "[train]\ngradient_accumulation_steps = 2\n")
    assert protocols(SPEC + "[train]\ngradient_accumulation_steps = 2\n") == {2}
    profiles = [node.settings["training"] for node in accumulating.nodes.values() if node.kind == "profile"]
    assert not any("accumulation_protocol" in training for training in profiles)


def test_an_unknown_target_is_refused_with_the_names_that_there_are() -> None:
    with pytest.raises(LoraError, match="q_proj"):
        graph(SPEC + '[lora]\ntarget_modules = ["q_prj"]\n')


def test_counts_draw_held_out_rows_first_so_that_more_training_moves_nobody() -> None:
    few = draw(SplitTable(train=10, validation=5, test=5), 0, {"train": 100})
    many = draw(SplitTable(train=80, validation=5, test=5), 0, {"train": 100})
    assert few["test"] == many["test"] == Rows("train", 0, 0, 5)
    assert few["validation"] == many["validation"] == Rows("train", 0, 5, 10)
    assert many["train"] == Rows("train", 0, 10, 90)


def test_slices_names_fractions_and_the_data_s_own_splits() -> None:
    assert draw(SplitTable(train="train[:80%]", test="train[80%:]"), 0, {"train": 50}) == {
        "train": Rows("train", None, 0, 40),
        "test": Rows("train", None, 40, 50),
    }
    own = draw(SplitTable(), 0, {"train": 50, "validation": 5, "test": 6})
    assert own == {
        "train": Rows("train", None, 0, 50),
        "validation": Rows("validation", None, 0, 5),
        "test": Rows("test", None, 0, 6),
    }
    alone = draw(SplitTable(), 7, {"rows": 100})
    assert {name: rows.count for name, rows in alone.items()} == {"train": 80, "validation": 10, "test": 10}
    assert draw(SplitTable(test=3), 0, {"train": 10, "test": 9})["test"] == Rows("test", 0, 0, 3)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"train": 95, "test": 10}, "asks for 95 rows, but 90 of 100"),
        ({"train": "train[:50%]", "test": "train[40%:]"}, "share rows 40 to 49"),
        ({"train": "train[:50]", "test": 10}, "use one way for both"),
        ({"test": "tset"}, 'needs the split "tset"'),
        ({"test": "train[5:5]"}, "contains no rows"),
    ],
)
def test_splits_that_cannot_be_are_refused(table: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        draw(SplitTable.model_validate(table), 0, {"train": 100})


def test_a_split_that_asks_for_too_much_is_located_in_the_spec(tmp_path: Path) -> None:
    file = tmp_path / "study.toml"
    file.write_text(
        SPEC.replace('path = "builtin:facts"', 'path = "builtin:facts"\nsplit = { train = 10_000 }'), encoding="utf-8"
    )
    spec = specs.load(file)
    with pytest.raises(SpecError, match=r"study.toml:9:1: data.split: train asks for 10,000 rows"):
        build(spec, resolve(spec, None)[0])


def test_what_is_off_is_left_out_and_what_is_switched_off_is_not() -> None:
    text = SPEC + "[lora]\ninit_lora_weights = {}\nuse_dora = false\n"
    on, off = (graph(text.format(value)).sections["rank/r=4"]["adapter"] for value in ("true", "false"))
    assert (on["init_lora_weights"], off["init_lora_weights"]) == (True, False)
    assert "use_dora" not in on


def test_all_weights_are_trained_in_float32_unless_the_spec_says_otherwise() -> None:
    assert graph().sections["baselines/method=full"]["model"]["dtype"] == "float32"
    half = graph(SPEC.replace("[data]", 'dtype = "bfloat16"\n[data]')).sections
    assert half["baselines/method=full"]["model"]["dtype"] == "bfloat16"


def test_held_out_losses_are_of_the_answer_whatever_training_saw() -> None:
    found = graph(SPEC.replace("[evaluate]", "completion_only_loss = false\n[evaluate]"))
    seen = {
        node.split: node.settings["data"]["completion_only_loss"]
        for node in found.nodes.values()
        if node.kind == "prepare"
    }
    assert seen == {"train": False, "validation": True, "test": True}


def test_layers_are_counted_and_experts_are_not() -> None:
    from lorafile.graph.target_modules import layer_count

    modules = {f"model.layers.{layer}.mlp.experts.{expert}.w1": [1, 1] for layer in range(2) for expert in range(64)}
    assert layer_count(modules) == 2


def test_what_a_node_reads_and_what_reads_it_is_found_through_the_graph() -> None:
    whole = graph()
    by_address = {node.address: key for key, node in whole.nodes.items()}
    score = by_address["rank/r=4/seed=1:score/test"]
    reads = {"data/train", "data/test", "rank/r=4/seed=1"}
    read = {whole.nodes[key].address.split(":")[0] for key in whole.ancestors([score]) - {score}}
    assert read == reads
    train = by_address["rank/r=4/seed=1:train"]
    readers = {whole.nodes[key].configuration for key in whole.descendants([train])}
    assert readers == {"rank/r=4"}
    predicted = by_address["rank/r=4/seed=1:predict/test/likelihood"]
    assert whole.ancestors([score], within={score, predicted}) == {score, predicted}, (
        "paths through others do not count"
    )
    assert set(whole.restricted([score]).nodes) == whole.ancestors([score])


def test_a_graph_is_not_asked_before_somebody_asks_it() -> None:
    whole = graph()
    assert "edges" not in vars(whole)
    whole.ancestors(list(whole.nodes)[:1])
    assert set(whole.edges) == set(whole.nodes)
