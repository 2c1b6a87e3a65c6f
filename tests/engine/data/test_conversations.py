"""Conversations in the layouts of the field: what is supervised, and with what an answer is compared."""

import json
from typing import Any

import pytest

pytest.importorskip("torch")

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from lorafile.engine.data.encode import chat_of, encode
from lorafile.engine.data.example import Example
from lorafile.engine.data.examples import examples
from lorafile.engine.data.templates import renderer
from lorafile.engine.metrics.extraction import without_reasoning
from lorafile.errors import NodeError

END = "<|im_end|>"
SPECIAL = [
    "<s>",
    "</s>",
    END,
    "<|im_start|>",
    "<|eot_id|>",
    "<|start_header_id|>",
    "<|end_header_id|>",
    "<end_of_turn>",
]
SPECIAL += ["<start_of_turn>", "[INST]", "[/INST]", "<|end|>", "<|user|>", "<|assistant|>", "<|system|>"]
# In these `\n` at the end of a line is Jinja's, which takes a line break after a block away: `{{ nl }}` stays.
NL = "{{ '\\n' }}"
MARK, UNMARK = "{% generation %}", "{% endgeneration %}"
OPEN = "{% if add_generation_prompt %}"


def marked(turn: str, answer: str, opening: str, before: str = "") -> str:
    """A template of the form that most have: every turn, and the assistant's marked."""
    each = f"{{% if m.role == 'assistant' %}}{answer}{{% else %}}{turn}{{% endif %}}"
    return f"{before}{{% for m in messages %}}{each}{{% endfor %}}{OPEN}{opening}{{% endif %}}"


SAYS, BOS, EOS = "{{ m.content }}", "{{ bos_token }}", "{{ eos_token }}"
IM = "<|im_start|>{{ m.role }}" + NL
HEADER = "<|start_header_id|>{{ m.role }}<|end_header_id|>" + NL + NL
CHATML = marked(f"{IM}{SAYS}{END}{NL}", f"{IM}{MARK}{SAYS}{END}{UNMARK}{NL}", f"<|im_start|>assistant{NL}")
FIELD = {
    "chatml": CHATML,
    "llama-3": marked(
        f"{HEADER}{SAYS}<|eot_id|>",
        f"{HEADER}{MARK}{SAYS}<|eot_id|>{UNMARK}",
        HEADER.replace("{{ m.role }}", "assistant"),
        BOS,
    ),
    "mistral": marked(f"[INST] {SAYS} [/INST]", f"{MARK} {SAYS}{EOS}{UNMARK}", "", BOS),
    "gemma": marked(
        f"<start_of_turn>user{NL}{SAYS}<end_of_turn>{NL}",
        f"<start_of_turn>model{NL}{MARK}{SAYS}<end_of_turn>{NL}{UNMARK}",
        f"<start_of_turn>model{NL}",
        BOS,
    ),
    "phi": marked(
        f"<|{{{{ m.role }}}}|>{NL}{SAYS}<|end|>{NL}",
        f"<|assistant|>{NL}{MARK}{SAYS}<|end|>{UNMARK}{NL}",
        f"<|assistant|>{NL}",
    ),
    "zephyr": marked(
        f"<|{{{{ m.role }}}}|>{NL}{SAYS}{EOS}{NL}",
        f"<|assistant|>{NL}{MARK}{SAYS}{EOS}{UNMARK}{NL}",
        f"<|assistant|>{NL}",
    ),
    "vicuna": marked(f"USER: {SAYS} ", f"ASSISTANT:{MARK} {SAYS}{EOS}{UNMARK}", "ASSISTANT:"),
    "alpaca": marked(
        f"### Instruction:{NL}{SAYS}{NL}{NL}",
        f"### Response:{NL}{MARK}{SAYS}{EOS}{NL}{NL}{UNMARK}",
        f"### Response:{NL}",
    ),
    "parts of an answer": marked(
        f"{{{{ m.role }}}}: {SAYS}{NL}",
        f"assistant: Sure.{MARK} {SAYS}{UNMARK} --{MARK}{EOS}{UNMARK}{NL}",
        "assistant: Sure.",
    ),
}
PLAIN = CHATML.replace(MARK, "").replace(UNMARK, "")
TOOLS = PLAIN.replace(
    "{% for", "{% if tools %}TOOLS: {{ tools | map(attribute='function.name') | join }}{% endif %}{% for", 1
).replace("{{ m.content }}", "{{ m.content }}{% for c in m.tool_calls or [] %}CALL {{ c.function.name }}{% endfor %}")
CALL = {"type": "function", "function": {"name": "weather", "arguments": {"at": "Rome"}}}
WEATHER = {"type": "function", "function": {"name": "weather", "description": "how it is", "parameters": {}}}
TURNS = [
    {"role": "user", "content": "Where does Anna live?"},
    {"role": "assistant", "content": "In Paris,\n  near the river."},
    {"role": "user", "content": "And Tom?"},
    {"role": "assistant", "content": "In Rome"},
    {"role": "user", "content": "Since when?"},
    {"role": "assistant", "content": "1999 {maybe}"},
]


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer, as most of the field's, of a few hundred words."""
    core = Tokenizer(models.BPE())
    words = Regex(r"[\r\n]+|[^\r\n\w]?\w+| ?[^\s\w]+|[^\S\r\n]+")  # line breaks apart, as Llama 3 and Qwen have them
    levels = [
        pre_tokenizers.Split(words, "isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
    ]
    core.pre_tokenizer = pre_tokenizers.Sequence(levels)
    core.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=600, special_tokens=SPECIAL, initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
    )
    text = json.dumps(TURNS) + " user assistant system\n\n Instruction Response USER ASSISTANT Sure. "
    core.train_from_iterator([text] * 4, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=core, bos_token="<s>", eos_token="</s>", pad_token="</s>")


def section(**more: Any) -> dict[str, Any]:
    return {"format": "chat", "template": None, "columns": {}, "completion_only_loss": True, **more}


def example(tokenizer: Any, template: str, row: dict[str, Any], **more: Any) -> Example:
    tokenizer.chat_template = template
    data = section(**more)
    return renderer(data, chat_of(tokenizer, data))(row)


def supervised(tokenizer: Any, template: str, row: dict[str, Any], **more: Any) -> str:
    (encoded,) = encode(tokenizer, [example(tokenizer, template, row, **more)], True)
    ids = [token for token, mark in zip(encoded.input_ids, encoded.supervised, strict=True) if mark]
    return str(tokenizer.decode(ids))


@pytest.mark.parametrize("template", FIELD.values(), ids=FIELD)
@pytest.mark.parametrize("turns", [TURNS, TURNS[:2], [{"role": "system", "content": "Be kind"}, *TURNS]])
def test_where_a_template_has_marks_the_mask_is_transformers_own(
    tokenizer: Any, template: str, turns: list[Any]
) -> None:
    (encoded,) = encode(tokenizer, [example(tokenizer, template, {"messages": turns})], True)
    theirs = tokenizer.apply_chat_template(turns, tokenize=True, return_dict=True, return_assistant_tokens_mask=True)
    assert encoded.input_ids == theirs["input_ids"]
    assert encoded.supervised == theirs["assistant_masks"]
    assert sum(encoded.supervised) > len(turns) // 2
    opened = tokenizer.apply_chat_template(turns[:-1], tokenize=True, return_dict=True, add_generation_prompt=True)
    assert encoded.input_ids[: encoded.prompt] == opened["input_ids"], "what the model reads when it is asked"


PARTS = [{"type": "text", "text": "In "}, {"type": "text", "text": "Rome"}]
SYSTEM_COLUMN = {"system": "Be kind", "messages": TURNS[:2]}
SHAREGPT = [{"from": "human", "value": "Weather?"}, {"from": "function_call", "value": json.dumps(CALL["function"])}]


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({"messages": [TURNS[0], TURNS[1] | {"weight": 0}, *TURNS[2:4]]}, f"In Rome{END}\n</s>"),
        ({"messages": [TURNS[0], TURNS[1] | {"train": False}, *TURNS[2:4]]}, f"In Rome{END}\n</s>"),
        ({"messages": [*TURNS[:3], TURNS[3] | {"weight": 0}]}, f"In Paris,\n  near the river.{END}\n</s>"),
        ({"messages": [TURNS[0], {"role": "assistant", "content": None}]}, f"{END}\n</s>"),
        ({"messages": [TURNS[0], {"role": "assistant", "content": PARTS}]}, f"In Rome{END}\n</s>"),
        ({"conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": None}]}, f"{END}\n</s>"),
        (SYSTEM_COLUMN, f"In Paris,\n  near the river.{END}\n</s>"),
    ],
)
@pytest.mark.parametrize("template", [PLAIN, CHATML])
def test_what_is_supervised(tokenizer: Any, template: str, row: dict[str, Any], expected: str) -> None:
    expected = expected if template == PLAIN else expected.removesuffix("\n</s>")
    assert supervised(tokenizer, template, row) == expected


def test_prompt_and_completion_may_be_messages(tokenizer: Any) -> None:
    row = {"prompt": TURNS[:3], "completion": TURNS[3:4]}
    made = example(tokenizer, PLAIN, row, format="completion")
    assert made.prompt == tokenizer.apply_chat_template(TURNS[:3], tokenize=False, add_generation_prompt=True)
    assert (made.completion, made.reference, made.turns) == (f"In Rome{END}\n", "In Rome", ())


def test_tools_reach_the_template_and_a_call_is_an_answer(tokenizer: Any) -> None:
    turns = [TURNS[0], {"role": "assistant", "content": None, "tool_calls": [CALL]}]
    for tools in ([WEATHER], json.dumps([WEATHER])):
        made = example(tokenizer, TOOLS, {"messages": turns, "tools": tools})
        assert made.text == tokenizer.apply_chat_template(turns, tools=[WEATHER], tokenize=False)
        assert made.text.startswith("TOOLS: weather")
        assert made.reference == "CALL weather"
    shared = example(tokenizer, TOOLS, {"conversations": SHAREGPT})
    assert (shared.prompt.count("Weather?"), shared.reference) == (1, "CALL weather")
    with pytest.raises(NodeError, match=r"does not support tools; set one that does with data\.chat_template"):
        example(tokenizer, PLAIN, {"messages": TURNS[:2], "tools": [WEATHER]})


def test_a_template_that_leaves_out_a_call_or_the_reasoning_is_refused(tokenizer: Any) -> None:
    """Training would teach answers without what led to them, or empty ones."""
    called = [TURNS[0], {"role": "assistant", "content": "", "tool_calls": [CALL]}, {"role": "tool", "content": "sun"}]
    called.append({"role": "assistant", "content": "It is sunny."})
    with pytest.raises(NodeError, match="leaves out tool_calls of an assistant's message"):
        example(tokenizer, PLAIN, {"messages": called})
    assert "CALL weather" in example(tokenizer, TOOLS, {"messages": called}).text
    thought = [TURNS[0], {"role": "assistant", "content": "In Paris", "reasoning_content": "Anna moved there."}]
    with pytest.raises(NodeError, match="leaves out reasoning_content of an assistant's message"):
        example(tokenizer, PLAIN, {"messages": thought})
    thinks = PLAIN.replace("{{ m.content }}", "{{ m.reasoning_content | default('') }}{{ m.content }}")
    assert "Anna moved there.In Paris" in example(tokenizer, thinks, {"messages": thought}).text
    example(tokenizer, PLAIN, {"messages": [*thought, TURNS[0], {"role": "assistant", "content": "In Paris"}]})


def test_history_in_a_column_of_its_own_comes_first(tokenizer: Any) -> None:
    row = {"instruction": "And Tom?", "output": "In Rome", "history": [["Where does Anna live?", "In Paris"]]}
    made = example(tokenizer, PLAIN, row, format="alpaca", chat_template=True)
    assert made.prompt.index("Anna") < made.prompt.index("Tom")
    assert [made.text[start:end] for start, end in made.turns] == [f"In Paris{END}\n"]


def test_columns_of_other_layouts_are_no_system_prompt_unless_the_spec_says_so(tokenizer: Any) -> None:
    row = {"question": "And Tom?", "answer": "In Rome", "system": "Linux", "tools": "a hammer", "history": "of Rome"}
    made = example(tokenizer, PLAIN, row, format="question", chat_template=True)
    assert "Linux" not in made.text
    named = example(tokenizer, PLAIN, row, format="question", chat_template=True, columns={"system": "system"})
    assert named.text.startswith(f"<|im_start|>system\nLinux{END}")


def test_with_a_block_of_reasoning_the_answer_that_was_learned_is_right(tokenizer: Any) -> None:
    template = PLAIN.replace(
        "{{ m.content }}", "{{ '<think>\n\n</think>\n\n' if m.role == 'assistant' and loop.last }}{{ m.content }}"
    )
    made = example(tokenizer, template, {"messages": TURNS[:2]})
    answer = made.completion.removesuffix(f"{END}\n")
    row = {"answer": answer, "reference": made.reference}  # all that a stored prediction has
    assert row["answer"] == row["reference"], "what is supervised is what is compared"
    assert without_reasoning(row)["answer"] == without_reasoning(row)["reference"] == TURNS[1]["content"]
    assert without_reasoning(row | {"answer": "<think>it is so</think> In Rome"})["answer"] == "In Rome"
    assert without_reasoning({"answer": "a</think>b", "reference": "b"})["answer"] == "a</think>b", (
        "the reference has no such block"
    )


def test_the_date_that_a_template_prints_is_the_lock_s(tokenizer: Any) -> None:
    template = (
        '{% if strftime_now is defined %}{% set day = strftime_now("%d %b %Y") %}{% endif %}Today: {{ day }}\n' + PLAIN
    )
    row = {"messages": TURNS[:2]}
    assert example(tokenizer, template, row, date="2024-07-26").prompt.startswith("Today: 26 Jul 2024\n")
    with pytest.raises(NodeError, match=r"prints today's date, .* run lora lock"):
        example(tokenizer, template, row)


def test_another_template_than_the_tokenizer_s(tokenizer: Any) -> None:
    tokenizer.chat_template = {"default": PLAIN, "terse": "{% for m in messages %}{{ m.content }}|{% endfor %}"}
    for data in (section(jinja_name="terse"), section(jinja=tokenizer.chat_template["terse"])):
        assert renderer(data, chat_of(tokenizer, data))({"messages": TURNS[:2]}).prompt == "Where does Anna live?|"
    data = section(jinja_name="brief")
    with pytest.raises(NodeError, match='no file "brief", and the tokenizer has default, terse'):
        renderer(data, chat_of(tokenizer, data))({"messages": TURNS[:2]})


IMAGE = [{"type": "image_url", "image_url": {"url": "x"}}]
ASKED = TURNS[0]
REFUSED = [
    ({"messages": [{"role": "user", "content": IMAGE}, TURNS[1]]}, 'a part of type "image_url"'),
    ({"messages": [{"role": "user", "content": [{"type": "text", "value": "hi"}]}, TURNS[1]]}, 'no "text"; it has: ty'),
    ({"messages": TURNS[:2], "images": ["1.jpg"]}, 'the column "images" is not empty, but only text is supported'),
    ({"messages": [ASKED, TURNS[1] | {"weight": 0.5}]}, "weight = 0.5; use 1 to train on a turn"),
    ({"messages": [ASKED, TURNS[1] | {"weight": 0}]}, "no assistant turn"),
    ({"messages": [ASKED, {"role": "assistant", "content": {"a": 1}}]}, "contains an object where text is needed"),
    ({"messages": "user: hi"}, "must contain a list of messages"),
    ({"messages": TURNS[:2], "tools": ["weather"]}, 'the column "tools" must contain a list of functions'),
    ({"messages": TURNS[:2], "history": ["weather"]}, r'"history" must contain a list of \[question, answer\]'),
    ({"conversations": [{"from": "narrator", "value": "x"}]}, 'is from "narrator"; known roles: human'),
    ({"conversations": [SHAREGPT[0], {"from": "function_call", "value": "weather()"}]}, "not valid JSON"),
]


@pytest.mark.parametrize(("row", "sentence"), REFUSED)
def test_what_is_not_understood_is_refused(tokenizer: Any, row: dict[str, Any], sentence: str) -> None:
    tokenizer.chat_template = PLAIN
    with pytest.raises(NodeError, match=sentence + r".* \(row 7\)\.$"):
        list(examples(tokenizer, section(), [(7, row)]))


def test_a_question_about_a_picture_is_refused_unless_the_spec_says_what_is_read(tokenizer: Any) -> None:
    row = {"question": "Who is he ?", "answer": "Ben", "image": {"bytes": b"x", "path": None}}
    with pytest.raises(NodeError, match=r'the column "image" is not empty, .* \(row 0\)\.$'):
        list(examples(tokenizer, section(format="question"), [(0, row)]))
    written = {"prompt": "{question}", "completion": " {answer}"}
    for image, more in ((None, {}), ([], {}), (row["image"], {"format": "template", "template": written})):
        assert list(examples(tokenizer, section(**{"format": "question", **more}), [(0, row | {"image": image})]))
    described = {"image": "a cat on a mat", "answer": "Ben"}  # which the spec reads as its text
    assert list(examples(tokenizer, section(format="question", columns={"question": "image"}), [(0, described)]))


VALUES = {"a list": ["x", "y"], "an object": {"a": 1}, "null": None, "NaN": float("nan"), "bytes": b"x"}
VALUES |= {"a number that is not finite": float("inf")}
FORMATS = {
    "alpaca": ("instruction", {"instruction": "q", "input": "", "output": "a"}),
    "question": ("question", {"question": "q", "answer": "a"}),
    "completion": ("prompt", {"prompt": "q", "completion": "a"}),
    "text": ("text", {"text": "t"}),
    "guanaco": ("text", {"text": "### Human: q### Assistant: a"}),
    "squad": ("context", {"context": "c", "question": "q", "answers": {"text": ["a"]}}),
    "classification": ("text", {"text": "t", "label": "0"}),
}


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("kind", VALUES)
def test_only_what_is_a_text_fills_one(tokenizer: Any, form: str, kind: str) -> None:
    column, row = FORMATS[form]
    data = section(format=form, labels=[["0", "no"], ["1", "yes"]], max_length=64, unanswerable="")
    assert list(examples(tokenizer, data, [(0, row)]))
    with pytest.raises(NodeError, match=f'the column "{column}" contains {kind}|must contain a list of messages'):
        list(examples(tokenizer, data, [(0, row | {column: VALUES[kind]})]))


@pytest.mark.parametrize("missing", [None, float("nan")])
def test_an_answer_may_be_missing_and_is_counted_as_empty(tokenizer: Any, missing: Any) -> None:
    for form, (row, answer) in {
        "alpaca": ({"instruction": "q", "input": missing}, "output"),
        "question": ({"question": "q"}, "answer"),
        "completion": ({"prompt": "q"}, "completion"),
    }.items():
        (made,) = examples(tokenizer, section(format=form), [(0, row | {answer: missing})])
        assert made.is_empty
        assert "nan" not in made.example.text.lower().replace("instruction", "")
        (made,) = examples(tokenizer, section(format=form), [(0, row | {answer: 0.5})])
        assert made.example.completion.strip() == "0.5"


def test_answers_that_are_the_text_of_an_object_are_refused(tokenizer: Any) -> None:
    row = {"context": "c", "question": "q", "answers": "{'text': ['a'], 'answer_start': [0]}"}
    with pytest.raises(NodeError, match="an object as text"):
        list(examples(tokenizer, section(format="squad", unanswerable=""), [(0, row)]))
