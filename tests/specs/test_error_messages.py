"""What is said of a spec that is wrong, and that nothing else than a SpecError ever comes of one."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from spec_fixture import BASE, message, parse

from lorafile import specs
from lorafile.errors import SpecError

SIX_MISTAKES = """\
[study]
name = "six"
seeds = [1, 1]

[model]
pth = "m"

[data]
path = "d"
format = "alpacca"

[train]
learning_rate = nan

[[sweep]]
lora.r = [4, "x"]
learning_rate = [1e-4]
"""


def test_six_mistakes_give_six_located_messages() -> None:
    with pytest.raises(SpecError) as caught:
        parse(SIX_MISTAKES, base="")
    assert caught.value.exit_code == 3
    told = [(p.line, p.column, p.setting) for p in caught.value.problems]
    assert told == [
        (3, 13, "study.seeds[1]"),
        (6, 1, "model.pth"),
        (10, 1, "data.format"),
        (13, 1, "train.learning_rate"),
        (16, 14, "sweep[0].lora.r[1]"),
        (17, 1, "sweep[0].learning_rate"),
    ]


MESSAGES = [
    ('lora.lora_alpha = "2x"', 'should be a number or a multiple of the rank such as "2r", not "2x"'),
    ("train.learning_rate = nan", "should be a finite number, not nan"),
    ("train.num_train_epochs = inf", "should be a finite number, not inf"),
    ('lora.r = "8"', 'should be a whole number, not "8"'),
    ("lora.r = true", "should be a whole number, not true"),
    ("lora.r = 99999999999999999999", "lora.r: is a number that does not fit into TOML's 64 bits"),
    ("lora.use_dora = 1", "should be true or false, not 1"),
    ("lora.layers_to_transform = []", "should be a list of at least one, not []"),
    ("lora.rank_pattern = { '(' = 3 }", "should be a valid regular expression"),
    (
        "lora.kasa_config = {}",
        "is a setting of peft.LoraConfig that a spec cannot name: KaSA cuts the base's own weights",
    ),
    ('train.lr_scheduler_type = "cosin"', 'did you mean "cosine"?'),
    ('[[sweep]]\nmethod = ["adlora"]', 'names, not "adlora"; did you mean "adalora"?'),
    ('[[sweep]]\nmethod = ["dora"]', 'a setting of one: method = "lora" with lora.use_dora = true'),
    ("train.seed = 3", 'unknown setting; did you mean "study.seeds"?'),
    ('report.path = "../elsewhere"', "report.path: should be a directory next to the spec"),
    ("train.r = 3", "unknown setting; it belongs in [lora]"),
    ("train.output_dir = 'out'", "unknown setting; results are kept in the state (--state)"),
    ("train.evaluation_strategy = 'steps'", 'unknown setting; did you mean "eval_steps"?'),
    ("lora.inference_mode = false", "unknown setting; it is set where an adapter is trained or used"),
    ("lora.rank = 3", 'lora.rank: unknown setting; did you mean "r"?'),
    ("lora.ranks = 3", 'lora.ranks: unknown setting; did you mean "r"?'),
    ('[[analysis]]\nask = "rank"\ntype = "noise"', 'analysis[0].type: unknown setting; did you mean "kind"?'),
    ('[[analysis]]\nkind = "inspect"', '"inspect" has nothing to show without the table [inspect]; add it, or'),
    ('[[analysis]]\nkind = "forgetting"', '"forgetting" has nothing to show without evaluate.reference; add it, or'),
    ('[[analysis]]\nkind = "lm_eval"', '"lm_eval" has nothing to show without evaluate.lm_eval_tasks; add it, or'),
    ('[[analysis]]\nkind = "tune"', '"tune" has nothing to show, because no setting is tuned'),
    ("lora.alpha = 3", 'lora.alpha: unknown setting; did you mean "lora_alpha"?'),
    ("train.lr = 3", 'train.lr: unknown setting; did you mean "learning_rate"?'),
    ("[train]\nquantization = 'nf4'", "write it at the top of the file, before the first [train]"),
    ("[train]\nlora = {}", "a top-level one; write [lora]"),
    ("[train]\n[train]", "declares [train] a second time; move its settings into the first one"),
    ("[trian]", 'unknown setting or table; did you mean "train"?'),
    ("lora = []", "should be a table, not []"),
    ("sweep = 3", "should be written as blocks that start with [[sweep]]"),
    ("[sweep]\nlora.r = [1]", "should be written as blocks that start with [[sweep]]"),
    ("sweep = [1]", "sweep[0]: should be a table, not 1"),
    ("[[sweep]]", "varies nothing"),
    ("[[sweep]]\nlora.r = []", "has no candidates"),
    ("[[sweep]]\nlora.r = 8", "should be a list of candidates, not 8; for a single candidate, write [8]"),
    ("[[sweep]]\nlora = [8]", "names a whole table; vary its settings, such as lora.r"),
    ("[[sweep]]\nlearning_rate = [1e-4]", 'cannot be swept; did you mean "train.learning_rate"?'),
    ("[[sweep]]\nlora.rr = [1]", 'sweep[0].lora.rr: unknown setting; did you mean "r"?'),
    ("[[sweep]]\nstudy.seeds = [[1]]", "every configuration runs with each of study.seeds"),
    ("[[sweep]]\nevaluate.max_new_tokens = [1]", "cannot be swept; a sweep varies model, data"),
    ("[[sweep]]\nquantization = [{ bits = 4 }]", "quantization[0].bits: unknown setting; allowed: load_in_8bit"),
    ("[[sweep]]\nquantization = [{ load_in_4bit = true, load_in_8bit = true }]", "set exactly one of"),
    ("[[sweep]]\nzip = ['lora.r', 'lora.rr']\nlora.r = [1]", '"lora.rr" does not vary in this sweep; did you mean'),
    ("[[sweep]]\nzip = ['lora.r']\nlora.r = [1]", "needs at least two settings"),
    (
        "[[sweep]]\nzip = ['lora.r', 'lora.lora_alpha']\nlora.r = [1, 2]\nlora.lora_alpha = [1]",
        "the same number of candidates: lora.r has 2, lora.lora_alpha has 1",
    ),
    (
        "[[sweep]]\nzip = ['lora.r', 'lora.lora_alpha']\nlora.r = [1, 'x']\nlora.lora_alpha = [1, 2]",
        'sweep[0].lora.r[1]: should be a whole number, not "x"',
    ),
    ("[[sweep]]\nlora.r = [8]\nexclude = [{}]", "is empty and would exclude every point"),
    ("[[sweep]]\nlora.r = [8]\nexclude = [{ lora.r = 8 }]", "no configuration is left"),
    ("[[sweep]]\nconfigurations = [{ name = 'a/b' }]", 'should be a name without "/", ":"'),
    ("[[sweep]]\nconfigurations = [{ name = 'a' }, { name = 'a', lora.r = 1 }]", 'are named "configurations/a"'),
    ("[[sweep]]\ndata.template.prompt = ['{q}']", "data.template.completion: is required"),
    ("[[sweep]]\nmethod = ['full']\nquantization = ['nf4']", "a quantized base cannot be fine-tuned in full"),
    ("method = 'full'\nquantization = 'nf4'", "a quantized base cannot be fine-tuned in full"),
    ("train = { bf16 = true, fp16 = true }", "cannot be true together with train.bf16"),
    ("train = { warmup_ratio = 0.1, warmup_steps = 3 }", "is the old name of a fractional warmup_steps"),
    ("train.max_steps = 0", "0 would train nothing"),
    ("evaluate.primary = 'exact_match'", '"exact_match" is not among evaluate.metrics: log_loss'),
    ("data.template = { prompt = '{q', completion = '{a}' }", "has an unmatched brace"),
    ("data.template = { prompt = '{q}', completion = 'yes' }", "names no column"),
    ("data.template.prompt = 'x'", "data.template.completion: is required"),
    ("data.columns = { questoin = 'q' }", 'did you mean "question"?'),
    ("data.split.train = 1.5", "should be at most 1, not 1.5 (A count, a fraction, or a slice"),
    ("data.split.test = ''", 'or a slice such as "train[:80%]", not ""'),
    (
        "[[analysis]]\nkind = 'trend'\nfactor = 'lora.r'",
        '"lora.r" does not vary in this study; settings that vary: nothing',
    ),
]


@pytest.mark.parametrize(("text", "part"), MESSAGES)
def test_a_mistake_is_told_with_what_is_allowed(text: str, part: str) -> None:
    told = message(BASE + text, base="")
    assert part in told
    assert told.startswith("s.toml:")
    assert "\n" not in told


def test_what_a_table_allows_is_listed_once_for_all_mistakes_in_it() -> None:
    told = message(f"{BASE}train.neftune_noise_alpha = 5\ntrain.group_by_length = true", base="").splitlines()
    assert told[0].endswith("auto_find_batch_size")
    assert told[1].endswith(f"train.group_by_length: unknown setting; allowed: see line {told[0].split(':')[1]}")


def test_an_empty_spec_says_what_it_needs() -> None:
    assert message("", base="# nothing\n").splitlines() == [
        "s.toml:1:1: study: is required; write [study] with name",
        "s.toml:1:1: model: is required; write [model] with path",
        "s.toml:1:1: data: is required; write [data] with path",
    ]


def test_one_mistake_does_not_hide_another() -> None:
    told = message("train = { learning_rate = 'x', max_steps = 0 }\nevaluate.primary = 'exact_match'")
    assert len(told.splitlines()) == 3


def test_a_product_that_explodes_is_refused() -> None:
    lists = "".join(
        f"lora.{name} = [{', '.join(f'0.{n:03}' for n in range(1, 200))}]\n" for name in ("lora_dropout", "lora_alpha")
    )
    assert "names 39,601 points, more than 10,000" in message("[[sweep]]\n" + lists)


def test_what_is_too_much_is_refused_before_it_is_looked_at() -> None:
    many = ", ".join(map(str, range(60_000)))
    assert "holds more than 100,000 settings" in message(f"[[sweep]]\nlora.r = [{many}]\ntrain.max_steps = [{many}]")
    block = f"[[sweep]]\nlora.r = [{', '.join(map(str, range(1, 101)))}]\nlora.lora_alpha = [{{}}]\n"
    blocks = "".join(block.format(", ".join(f"{n}.{m}" for m in range(90))) for n in range(1, 6))
    assert "defines more than 30,000 configurations" in message(blocks)


def test_a_thousand_mistakes_are_told_by_the_hundred() -> None:
    told = message("".join(f"train.x{n} = 1\n" for n in range(300))).splitlines()
    assert (len(told), told[-1]) == (101, "… and 200 more mistakes")


def test_a_file_without_end_is_no_spec() -> None:
    with pytest.raises(SpecError, match="is larger than 4 MiB"):
        specs.load(Path("/dev/zero"))


def test_a_missing_file_says_how_to_begin(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"file not found\. Write a first spec with: lora init"):
        specs.load(tmp_path / "none.toml")


def test_a_loaded_spec_locates_later_errors(tmp_path: Path) -> None:
    file = tmp_path / "s.toml"
    file.write_text(BASE + "[lora]\nr = 4\n", encoding="utf-8")
    error = specs.load(file).error(("lora", "r"), "is more than the model is wide")
    assert str(error) == f"{file}:5:1: lora.r: is more than the model is wide"


HOSTILE = [
    "a" * 10,
    "a = " + "[" * 5000,
    "a = " + "[" * 400 + "]" * 400,
    ".".join("a" * 3000) + " = 1",
    "[" + ".".join("a" * 800) + "]",
    "sweep = 3",
    "sweep = [1]",
    "study = 3",
    "lora.r = 1" + "0" * 6000,
    "lora.r = 0x" + "f" * 6000,
    'lora.r = "\\ud800"',
    "[[sweep]]\nzip = [['lora.r']]\nlora.r = [4]",
    "[[sweep]]\nzip = 'lora.r'\nlora.r = [4]",
    "[[sweep]]\nname = 3\nlora.r = [4]",
    "[[sweep]]\nexclude = { lora.r = 4 }\nlora.r = [4]",
    "[[sweep]]\nlora.r = [2020-01-01]",
    "[[sweep]]\nlora.r = [[[[]]]]",
    "[[sweep]]\nlora.rank_pattern = [3, {q = 'x'}]",
    "[[analysis]]\nkind = ['trend']\nfactor = {}",
    '"sch\\u00fcssel" = 1',
    "[lora]\n[lora]",
    "evaluate.metrics = ['exact_match', 3]",
    "data.template = 3",
    "none.learning_rate = 1",
]


@pytest.mark.parametrize("text", HOSTILE)
def test_whatever_stands_in_a_spec_the_error_is_a_spec_error(text: str) -> None:
    with pytest.raises(SpecError):
        parse(text)


KEYS = st.sampled_from(
    ["study", "name", "lora", "r", "sweep", "zip", "train", "learning_rate", "exclude", "configurations"]
)
KEYS |= st.sampled_from(
    ["data", "split", "template", "analysis", "factor", "quantization", "method", "evaluate", "metrics", "x y"]
)
LEAVES: st.SearchStrategy[Any] = st.sampled_from(
    [0, -1, 8, 2**70, 1e-4, float("nan"), True, "", "nf4", "lora.r", "{", [], {}]
)
VALUES = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3), max_leaves=12
)


def toml(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(key)} = {toml(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(toml, value)) + "]"
    return "nan" if value != value else json.dumps(value)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.dictionaries(KEYS, VALUES, max_size=4))
@example({"sweep": [{"zip": [{}], "lora": {"r": [{}]}}]})
def test_any_tables_are_read_or_refused(tables: dict[str, Any]) -> None:
    text = "".join(f"{json.dumps(key)} = {toml(value)}\n" for key, value in tables.items())
    for base in ("", BASE):
        try:
            parse(text, base)
        except SpecError as error:
            assert error.problems


@settings(max_examples=100, deadline=None)
@given(st.text(alphabet="[]{}=.,'\"\n #\\abr1e-_é", max_size=40))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        parse(text)
    except SpecError as error:
        assert all(problem.line >= 1 and problem.column >= 1 for problem in error.problems)
