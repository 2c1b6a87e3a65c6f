"""Answers and likelihoods do not depend on the batch: its size, its padding, the side of it, or the examples in it."""

import math
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from engine_fixture import MODEL, Engine  # noqa: E402

from lorafile import Study  # noqa: E402
from lorafile.engine.batching.tokens import Tokens  # noqa: E402
from lorafile.errors import SpecError  # noqa: E402
from lorafile.files.jsonl import read_lines  # noqa: E402
from lorafile.specs import load  # noqa: E402
from lorafile.specs.configurations import quantization_settings  # noqa: E402

DRAWN = {"do_sample": True, "temperature": 1.5, "top_p": 0.95, "top_k": 40, "seed": 7}


@pytest.fixture(scope="module")
def gpt2(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Path:
    """A random GPT-2 of two layers: its positions are absolute, so that padding on the left would shift them."""
    from transformers import AutoTokenizer, GPT2Config, GPT2LMHeadModel

    where = tmp_path_factory.mktemp("gpt2")
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    torch.manual_seed(1)
    ends = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 3}
    config = GPT2Config(vocab_size=len(tokenizer), n_embd=64, n_layer=2, n_head=4, n_positions=128, **ends)
    model = GPT2LMHeadModel(config)
    with torch.no_grad():
        model.transformer.wpe.weight.mul_(50)  # of a trained model's size, so that a wrong position is seen
    model.save_pretrained(where)
    tokenizer.save_pretrained(where)
    return where


@pytest.fixture(params=["llama", "gpt2"])
def engine(request: pytest.FixtureRequest, tiny_model: Path, gpt2: Path, rows_file: Path, tmp_path: Path) -> Engine:
    return Engine(tiny_model if request.param == "llama" else gpt2, rows_file, tmp_path)


def answers(engine: Engine, prepared: dict[str, str], size: int, **task: Any) -> list[str]:
    settings = {
        "model": MODEL,
        "quantization": None,
        "task": {"output": "generation", "max_new_tokens": 8, "do_sample": False, **task},
    }
    done, files = engine.run("predict", settings, {"data": prepared}, per_device_eval_batch_size=size)
    assert done.outcome == "done", done.message
    return [row["answer"] for row in read_lines(files["predictions.jsonl.gz"])]


@pytest.mark.parametrize(
    "task", [{}, {"num_beams": 3}, {"repetition_penalty": 1.3}, {"num_beams": 2, "repetition_penalty": 1.5}, DRAWN]
)
def test_answers_do_not_depend_on_the_batch(engine: Engine, task: dict[str, Any]) -> None:
    prepared = engine.prepare(12)
    alone = answers(engine, prepared, 1, **task)
    assert answers(engine, prepared, 5, **task) == alone
    assert answers(engine, prepared, 12, **task) == alone
    assert len({*alone}) > 1


def test_answers_are_those_of_plain_transformers_on_unpadded_prompts(engine: Engine) -> None:
    from transformers import AutoModelForCausalLM

    prepared = engine.prepare(6)
    tokens = Tokens.load(prepared["tokens.safetensors"])
    model = AutoModelForCausalLM.from_pretrained(engine.model).eval()
    tokenizer = engine.bases.get({"model": MODEL, "quantization": None}, {"model": str(engine.model)}).tokenizer
    for task in ({}, {"num_beams": 3}, {"repetition_penalty": 1.3}):
        expected = []
        for index in range(6):
            ids = torch.tensor([tokens.prompt(index)])
            made = model.generate(ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=8, **task)
            expected.append(tokenizer.decode(made[0, ids.shape[1] :], skip_special_tokens=True))
        assert answers(engine, prepared, 6, **task) == expected


@pytest.mark.parametrize(
    ("task", "expected"), [({}, "lorafile"), (DRAWN, "lorafile"), ({"num_beams": 2}, "transformers")]
)
def test_a_result_says_which_decoder_wrote_its_answers(engine: Engine, task: dict[str, Any], expected: str) -> None:
    """The slower one answers as well: without this a renamed argument of transformers would cost time in silence."""
    settings = {"model": MODEL, "quantization": None}
    asked = {"output": "generation", "max_new_tokens": 4, "do_sample": False, **task}
    data = {"data": engine.prepare(4)}
    done, _ = engine.run("predict", {**settings, "task": asked}, data)
    assert done.figures["decoder"] == expected
    likelihood, _ = engine.run("predict", {**settings, "task": {"output": "likelihood"}}, data)
    assert "decoder" not in likelihood.figures


def test_a_seed_draws_its_own_answers_and_draws_them_again(engine: Engine) -> None:
    prepared = engine.prepare(6)
    drawn = answers(engine, prepared, 6, **DRAWN)
    assert answers(engine, prepared, 6, **DRAWN) == drawn
    assert answers(engine, prepared, 6, **{**DRAWN, "seed": 8}) != drawn
    assert answers(engine, prepared, 6, **{**DRAWN, "top_k": 1}) == answers(engine, prepared, 6)


def test_draws_follow_the_model_s_own_probabilities() -> None:
    """Chi square of 4000 draws of one token, 4 degrees of freedom: 18.5 is the 0.1 % point."""
    from lorafile.engine.inference.generation import _Gumbel

    logits = torch.tensor([2.0, 1.0, 0.0, -1.0, -2.0])
    draws = _Gumbel(list(range(4000)))(torch.empty(0), logits.repeat(4000, 1)).argmax(dim=1)
    seen, expected = torch.bincount(draws, minlength=5), logits.softmax(0) * 4000
    assert float(((seen - expected) ** 2 / expected).sum()) < 18.5


def test_an_answer_ends_before_a_stop_string(engine: Engine) -> None:
    prepared = engine.prepare(8)
    whole = answers(engine, prepared, 8)
    longest = max(whole, key=len)
    stop = longest[len(longest) // 2 :][:3]
    stopped = answers(engine, prepared, 3, stop_strings=[stop])
    assert stopped == [text.split(stop)[0] for text in whole]
    assert stopped != whole


@pytest.mark.parametrize("task", [{}, {"num_beams": 3}])
def test_answers_that_nothing_but_the_limit_ended_are_counted(
    engine: Engine, task: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Against plain transformers on unpadded prompts, with an end token that some of its answers hold."""
    from transformers import AutoModelForCausalLM

    prepared = engine.prepare(8)
    tokens = Tokens.load(prepared["tokens.safetensors"])
    settings = {"model": MODEL, "quantization": None}
    base = engine.bases.get(settings, {"model": str(engine.model)})
    model = AutoModelForCausalLM.from_pretrained(engine.model).eval()

    def made(ends: list[int]) -> list[list[int]]:
        prompts = [torch.tensor([tokens.prompt(index)]) for index in range(8)]
        options = {"do_sample": False, "max_new_tokens": 8, "eos_token_id": ends, **task}
        whole = [model.generate(ids, attention_mask=torch.ones_like(ids), **options)[0] for ids in prompts]
        return [ids[prompt.shape[1] :].tolist() for ids, prompt in zip(whole, prompts, strict=True)]

    ends = [*base.model.generation_config.eos_token_id]
    ends.append(made(ends)[0][3])
    monkeypatch.setattr(base.model.generation_config, "eos_token_id", ends)
    expected = sum(not {*ids} & {*ends} for ids in made(ends))
    asked = {"output": "generation", "max_new_tokens": 8, "do_sample": False, **task}
    for size in (1, 5):
        done, files = engine.run(
            "predict", {**settings, "task": asked}, {"data": prepared}, per_device_eval_batch_size=size
        )
        assert done.figures["cut"] == expected
        assert expected < 8 or task, "the test shows nothing otherwise"
        assert {*next(iter(read_lines(files["predictions.jsonl.gz"])))} == {"row", "reference", "answer"}
    if not task:  # a beam that holds a string may lose against others
        whole = answers(engine, prepared, 8)
        stop = max(whole, key=len)[:3]
        done, _ = engine.run("predict", {**settings, "task": {**asked, "stop_strings": [stop]}}, {"data": prepared})
        assert done.figures["cut"] == sum(
            not {*ids} & {*ends} and stop not in text for ids, text in zip(made(ends), whole, strict=True)
        )


def test_after_turns_an_answer_ends_as_the_template_ends_it(engine: Engine) -> None:
    from lorafile.engine.inference.generation import end_of_turn

    prepared = engine.prepare(8)
    whole = answers(engine, prepared, 8)
    tokenizer = engine.bases.get({"model": MODEL, "quantization": None}, {"model": str(engine.model)}).tokenizer
    kept = tokenizer.chat_template
    stop = max(whole, key=len).split()[1]
    try:
        tokenizer.chat_template = "{% for m in messages %}{{ m.content }} " + stop + " {% endfor %}"
        assert end_of_turn(tokenizer) == ([stop], [])
        assert answers(engine, prepared, 3, stop_at_turn=True) == [text.split(stop)[0] for text in whole]
        assert answers(engine, prepared, 8) == whole, "others are not ended"
        tokenizer.chat_template = "{% for m in messages %}{{ m.content }}{{ eos_token }}user :{% endfor %}"
        assert end_of_turn(tokenizer) == ([], [tokenizer.eos_token_id])
        tokenizer.chat_template = "{% for m in messages %}{{ m.content | upper }};{% endfor %}"
        assert end_of_turn(tokenizer) == ([], []), "what the template alters tells nothing"
    finally:
        tokenizer.chat_template = kept


@pytest.mark.parametrize("quantization", ["none", "int8"])
def test_perplexity_does_not_depend_on_batch_or_padding_side(
    engine: Engine, quantization: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Against plain transformers on the same tokens, padded by hand on either side."""
    if quantization == "int8":
        pytest.importorskip("bitsandbytes")
    prepared = engine.prepare(12)
    mine = perplexities(engine.predict(prepared, None, size=12, quantization=quantization))
    assert perplexities(engine.predict(prepared, None, size=1, quantization=quantization)) == pytest.approx(
        mine, rel=1e-5
    )
    settings = {"model": MODEL, "quantization": quantization_settings(quantization)}
    model = engine.bases.get(settings, {"model": str(engine.model)}).model
    tokens = Tokens.load(prepared["tokens.safetensors"])
    for side in ("left", "right"):
        assert by_hand(model, tokens, side) == pytest.approx(mine, rel=1e-5), side


def perplexities(rows: list[dict[str, Any]]) -> float:
    return math.exp(-sum(row["log_likelihood"] for row in rows) / sum(row["tokens"] for row in rows))


def by_hand(model: Any, tokens: Tokens, side: str) -> float:
    """Return the perplexity of one batch of all examples, from transformers' own loss of labels."""
    found = [tokens.example(index) for index in range(len(tokens))]
    width = max(len(ids) for ids, _ in found)
    ids = torch.full((len(found), width), 3)
    mask, labels = torch.zeros_like(ids), torch.full_like(ids, -100)
    for row, (text, supervised) in enumerate(found):
        here = slice(width - len(text), width) if side == "left" else slice(0, len(text))
        ids[row, here], mask[row, here] = text, 1
        labels[row, here] = torch.where(supervised.bool(), text, -100)
    positions = (mask.cumsum(1) - 1).clamp_min(0)
    with torch.inference_mode():
        loss = model(input_ids=ids, attention_mask=mask, position_ids=positions, labels=labels).loss
    return math.exp(float(loss))


def with_settings(spec_file: Path, lines: str) -> Path:
    text = spec_file.read_text(encoding="utf-8").replace('["log_loss"]', '["log_loss", "exact_match"]')
    spec_file.write_text(text.replace("max_new_tokens = 3", f"max_new_tokens = 3\n{lines}"), encoding="utf-8")
    return spec_file


def tasks(spec_file: Path) -> list[dict[str, Any]]:
    graph = Study.load(spec_file, spec_file.parent / ".lora").plan().graph
    found = [node.settings["task"] for node in graph.nodes.values() if node.kind == "predict"]
    return [task for task in found if task["output"] == "generation"]


def test_decoding_is_in_the_key_and_only_what_is_set(spec_file: Path) -> None:
    greedy = {"output": "generation", "max_new_tokens": 3, "do_sample": False}
    assert tasks(with_settings(spec_file, "num_beams = 1"))[0] == greedy
    text = spec_file.read_text(encoding="utf-8")
    spec_file.write_text(text.replace("num_beams = 1", 'num_beams = 2\nstop_strings = ["\\n"]'), encoding="utf-8")
    assert tasks(spec_file)[0] == {**greedy, "num_beams": 2, "stop_strings": ["\n"]}


def test_drawn_answers_have_a_replicate_for_each_seed_the_untuned_row_included(spec_file: Path) -> None:
    with_settings(spec_file, "do_sample = true\ntemperature = 0.7")
    spec_file.write_text(
        spec_file.read_text(encoding="utf-8") + '[[sweep]]\nmethod = ["none", "lora"]\n', encoding="utf-8"
    )
    drawn = tasks(spec_file)
    assert {task["seed"] for task in drawn} == {1, 2}
    assert {(task["temperature"], task["top_p"], task["top_k"]) for task in drawn} == {(0.7, 1.0, 50)}
    assert len(drawn) == 8, "two methods, two seeds, two splits"


@pytest.mark.parametrize(
    ("lines", "told"),
    [
        ("temperature = 0.7", "evaluate.temperature: has no effect without sampling; also set do_sample = true"),
        ("do_sample = true\nnum_beams = 2", "evaluate.num_beams: beam search does not sample"),
        ("top_p = 1.5", "evaluate.top_p: should be at most 1"),
    ],
)
def test_decoding_that_makes_no_sense_is_refused(spec_file: Path, lines: str, told: str) -> None:
    with pytest.raises(SpecError) as error:
        load(with_settings(spec_file, lines))
    assert told in str(error.value)
