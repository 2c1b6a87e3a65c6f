"""The sums that prove a base unchanged: no change of a bit, and no exchange of two values, is missed."""

from typing import Any

import pytest

torch = pytest.importorskip("torch")

from lorafile.engine.model.fingerprint import fingerprint, tensor_sums  # noqa: E402

LENGTH = 2**18 + 70_003  # two pieces; no multiple of a word, in any type


def filled(dtype: Any) -> Any:
    torch.manual_seed(0)
    return torch.randint(0, 256, (LENGTH * dtype.itemsize,), dtype=torch.uint8).view(dtype)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.bfloat16, torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("place", [0, 1, 65521, 2**18 - 1, 2**18, LENGTH - 2, LENGTH - 1])
def test_a_changed_bit_is_seen_wherever_it_is(dtype: Any, place: int) -> None:
    tensor = filled(dtype)
    before = tensor_sums([tensor])
    assert tensor_sums([tensor.clone()]) == before
    for bit in (0, 7):
        tensor.view(torch.uint8)[place * dtype.itemsize] ^= 1 << bit
        assert tensor_sums([tensor]) != before
        tensor.view(torch.uint8)[place * dtype.itemsize] ^= 1 << bit
    assert tensor_sums([tensor]) == before


@pytest.mark.parametrize("distance", [1, 2, 4096, 2**16, 2**18])
def test_two_values_that_change_places_are_seen(distance: int) -> None:
    tensor = filled(torch.float32)
    tensor[5], tensor[5 + distance] = 1.0, -1.0  # they differ in one bit, the highest
    before = tensor_sums([tensor])
    tensor[5], tensor[5 + distance] = -1.0, 1.0
    assert tensor_sums([tensor]) != before


def test_a_view_has_the_sums_of_its_copy() -> None:
    tensor = filled(torch.bfloat16)
    assert tensor_sums([tensor[1:]]) == tensor_sums([tensor[1:].clone()])
    assert tensor_sums([tensor[:0], torch.tensor(3.0)])


def test_a_model_is_the_sums_of_what_it_holds() -> None:
    model = torch.nn.Sequential(torch.nn.Linear(3, 5), torch.nn.BatchNorm1d(5))
    before = fingerprint(model)
    model[1].running_mean += 1e-7
    assert fingerprint(model) != before
