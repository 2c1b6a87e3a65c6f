"""Our own decoding against transformers' `generate`, and batches of evaluation that fill a device."""

from typing import Any

import pytest

torch = pytest.importorskip("torch")

from transformers import AutoConfig, AutoModelForCausalLM, GenerationMixin  # noqa: E402

from lorafile.engine.batching.batches import Batch, fill_device  # noqa: E402
from lorafile.engine.inference.decoding import Rules, can_decode, decode, rows_to_keep  # noqa: E402
from lorafile.engine.inference.predictions import _smaller_where_needed  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")  # peft itself, used here
SHAPE = {
    "vocab_size": 40,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "pad_token_id": 3,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
WINDOW = {"sliding_window": 4, "head_dim": 8}  # shorter than the prompts
MODELS: dict[str, dict[str, Any]] = {
    "llama": SHAPE,
    "gpt2": {**SHAPE, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64},
    "mistral": {**SHAPE, "sliding_window": 4},
    "gemma2": {**SHAPE, **WINDOW, "query_pre_attn_scalar": 8},
    "gpt_neox": SHAPE,
    "opt": {**SHAPE, "ffn_dim": 48, "word_embed_proj_dim": 32},
    "bloom": SHAPE,
}
LIMIT = 12


def made(name: str, shape: dict[str, Any]) -> Any:
    torch.manual_seed(1)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(name, **shape)).eval()
    with torch.no_grad():
        for parameter in model.parameters():  # far enough from uniform that rounding decides no token
            parameter.mul_(4 if parameter.dim() > 1 else 1)
    return model


def prompts(lengths: list[int]) -> Batch:
    torch.manual_seed(2)
    width = max(lengths)
    ids, mask = torch.full((len(lengths), width), 3), torch.zeros(len(lengths), width, dtype=torch.int64)
    for row, length in enumerate(lengths):
        ids[row, width - length :] = torch.randint(4, 40, (length,))
        mask[row, width - length :] = 1
    return Batch(list(range(len(lengths))), ids, mask, mask.bool())


@pytest.mark.parametrize("name", MODELS)
def test_tokens_are_those_of_transformers_and_rows_leave_as_they_end(name: str) -> None:
    model, batch = made(name, MODELS[name]), prompts([9, 2, 5, 7, 6, 8])
    if (
        name == "bloom"
        and type(model).prepare_inputs_for_generation is not GenerationMixin.prepare_inputs_for_generation
    ):
        pytest.skip("in this transformers BLOOM prepares its inputs in a way of its own")
    assert can_decode(model)
    free = [alone(model, batch, row, []) for row in range(6)]
    ends = sorted({free[0][1], free[1][3], free[2][6]})
    expected = [alone(model, batch, row, ends) for row in range(6)]
    assert len({len(row) for row in expected}) > 1
    rows: list[int] = []
    model.register_forward_pre_hook(lambda _, __, given: rows.append(len(given["input_ids"])), with_kwargs=True)
    assert decode(model, batch, Rules(LIMIT, ends, [])) == expected
    assert rows[0] == 6 and rows[-1] < 6
    assert len(rows) == max(len(row) for row in expected)
    assert decode(model, batch, Rules(LIMIT, ends, [], slices=2)) == expected


def alone(model: Any, batch: Batch, row: int, ends: list[int]) -> list[int]:
    """Return what transformers makes of one prompt without padding, up to a token that ends it."""
    ids = batch.input_ids[row][batch.attention_mask[row].bool()][None]
    model.generation_config.eos_token_id = None
    whole = model.generate(ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=LIMIT)
    tokens = whole[0, ids.shape[1] :].tolist()
    at = next((place for place, token in enumerate(tokens) if token in ends), LIMIT)
    return tokens[: at + 1]


@pytest.mark.parametrize("name", ["mamba", "recurrent_gemma", "phi3"])
def test_a_model_that_keeps_more_than_keys_and_values_is_left_to_transformers(name: str) -> None:
    shape = {**SHAPE, "num_hidden_layers": 3, "state_size": 4, "lru_width": 32}
    assert not can_decode(made(name, shape))


def test_each_slice_keeps_the_same_number_of_rows() -> None:
    ended = torch.tensor([True, False, True, False, False, True, True, True])
    assert rows_to_keep(ended, 1).tolist() == [1, 3, 4]
    assert rows_to_keep(ended, 2).tolist() == [
        1,
        3,
        4,
        5,
    ]  # the second slice has one left, and an ended one fills up
    assert rows_to_keep(torch.ones(4, dtype=torch.bool), 2) is None


def test_a_batch_that_does_not_fit_is_done_in_smaller_ones() -> None:
    tried: list[int] = []

    def work(indexes: list[int]) -> list[dict[str, Any]]:
        tried.append(len(indexes))
        if len(indexes) > 2:
            raise torch.OutOfMemoryError
        return [{"twice": 2 * index} for index in indexes]

    found = {
        index: line["twice"]
        for indexes, lines in _smaller_where_needed([[0, 1, 2, 3, 4], [5, 6]], work)
        for index, line in zip(indexes, lines, strict=True)
    }
    assert found == {index: 2 * index for index in range(7)}
    assert tried == [5, 3, 2, 1, 2, 2]
    with pytest.raises(torch.OutOfMemoryError):
        list(_smaller_where_needed([[0, 1]], lambda indexes: (_ for _ in ()).throw(torch.OutOfMemoryError())))


def test_a_batch_holds_as_many_tokens_for_one_adapter_as_for_eight() -> None:
    cpu = torch.device("cpu")
    lengths = [3, 500, 20, 20, *[8] * 300]
    batches = fill_device(lengths, 1, cpu)
    assert sorted(index for batch in batches for index in batch) == list(range(304))
    assert [len(batch) for batch in batches] == [16, 256, 32]
    assert batches[0][0] == 1
    eight = fill_device(lengths, 8, cpu)
    assert [len(batch) for batch in eight][:3] == [2, 12, 32]
    assert len(fill_device([5000] * 32, 1, cpu)[0]) == 16


def test_answers_of_an_adapter_that_waits_for_a_word_are_left_to_transformers() -> None:
    from peft import LoraConfig, get_peft_model

    plain = {"r": 2, "target_modules": ["q_proj"], "task_type": "CAUSAL_LM"}
    assert can_decode(get_peft_model(made("llama", SHAPE), LoraConfig(**plain)))
    assert not can_decode(get_peft_model(made("llama", SHAPE), LoraConfig(**plain, alora_invocation_tokens=[5])))
