"""Cross entropy in pieces against torch's own."""

import math
import os
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from torch.nn import functional  # noqa: E402

from lorafile.engine.model.loss import cross_entropies  # noqa: E402
from lorafile.engine.model.peak_memory import LiveTensors  # noqa: E402

ROWS, WORDS = 37, 101


def drawn(dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return logits, targets, and what each row's loss is multiplied by."""
    torch.manual_seed(0)
    logits = (8 * torch.randn(ROWS, WORDS, dtype=torch.float64)).to(dtype).requires_grad_()
    return logits, torch.randint(WORDS, (ROWS,)), torch.rand(ROWS, dtype=torch.float64)


@pytest.mark.parametrize("piece", [1, 10 * WORDS, 2**21])
@pytest.mark.parametrize(
    ("dtype", "loss", "gradient"),
    [(torch.float64, 1e-14, 1e-14), (torch.float32, 1e-6, 1e-6), (torch.bfloat16, 1e-6, 8e-3)],
)
def test_losses_and_gradients_are_those_of_torch(
    monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype, loss: float, gradient: float, piece: int
) -> None:
    """Of the logits as they are, computed in float64; a gradient in bfloat16 is rounded twice."""
    monkeypatch.setattr("lorafile.engine.model.loss._CPU_PIECE", piece)
    logits, targets, weights = drawn(dtype)
    exact = logits.detach().double().requires_grad_()
    wanted = functional.cross_entropy(exact, targets, reduction="none")
    found = cross_entropies(logits, targets)
    torch.testing.assert_close(found.double(), wanted, rtol=loss, atol=loss)
    (found * weights.to(found)).sum().backward()
    (wanted * weights).sum().backward()
    assert logits.grad is not None
    assert exact.grad is not None
    assert logits.grad.dtype == dtype
    torch.testing.assert_close(logits.grad.double(), exact.grad, rtol=gradient, atol=gradient / 100)


def test_rows_that_are_sure_have_no_loss_and_impossible_ones_a_finite_one() -> None:
    logits = torch.tensor([[200.0, 0.0], [0.0, 200.0]], requires_grad=True)
    found = cross_entropies(logits, torch.tensor([0, 0]))
    found.sum().backward()
    assert found.tolist() == [0.0, 200.0]
    assert logits.grad.tolist() == [[0.0, 0.0], [-1.0, 1.0]]


def test_a_batch_without_supervised_tokens_has_no_loss() -> None:
    logits = torch.zeros(0, 5, requires_grad=True)
    cross_entropies(logits, torch.zeros(0, dtype=torch.int64)).sum().backward()
    assert logits.grad.shape == (0, 5)


def peak(ours: bool) -> int:
    """Return the most bytes that a head over 20,000 words and its loss hold, forward and back, in bfloat16."""
    hidden = torch.randn(256, 8, dtype=torch.bfloat16, requires_grad=True)
    weight = torch.randn(20_000, 8, dtype=torch.bfloat16)
    targets = torch.zeros(256, dtype=torch.int64)
    with LiveTensors(torch.nn.Identity()) as live:
        logits = hidden @ weight.T
        if ours:
            each = cross_entropies(logits, targets)
        else:
            each = functional.cross_entropy(logits.float(), targets, reduction="none")
        del logits
        each.sum().backward()
    return live.peak


def test_it_takes_half_of_the_memory_that_torchs_own_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lorafile.engine.model.loss._CPU_PIECE", 8 * 20_000)
    assert peak(ours=True) < peak(ours=False) / 2


def test_a_loss_scale_saves_small_gradients_in_float16() -> None:
    logits = torch.tensor([[18.0, 0.0]], dtype=torch.float16, requires_grad=True)  # e⁻¹⁸ is below what float16 holds
    (2**16 * cross_entropies(logits, torch.tensor([0]))).sum().backward()
    assert logits.grad[0, 1].item() == pytest.approx(2**16 * math.exp(-18), rel=1e-2)


def test_a_second_backward_pass_is_refused() -> None:
    logits, targets, _ = drawn(torch.float32)
    found = cross_entropies(logits, targets).sum()
    found.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        found.backward()


def test_the_gradient_is_weighed_to_the_same_bits_whatever_the_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    found = []
    for piece in (1, 10 * WORDS, 2**21):
        monkeypatch.setattr("lorafile.engine.model.loss._CPU_PIECE", piece)
        logits, targets, weights = drawn(torch.bfloat16)
        (cross_entropies(logits, targets) * weights.float()).sum().backward()
        found.append(logits.grad)
    once = torch.zeros(ROWS, WORDS).scatter_(1, targets[:, None], -1.0)
    once += logits.detach().float().softmax(-1)
    assert torch.equal(found[0], found[1]) and torch.equal(found[1], found[2])
    torch.testing.assert_close(found[2], once.bfloat16() * weights.float()[:, None].bfloat16(), rtol=2e-2, atol=1e-4)


def test_the_backward_pass_copies_no_whole_gradient() -> None:
    """At a vocabulary of 128,256; torch's product of bfloat16 and float32 makes copies of all that it is given."""
    clear, status = Path("/proc/self/clear_refs"), Path("/proc/self/status")
    if not os.access(clear, os.W_OK):
        pytest.skip("the process's peak of memory cannot be reset here")

    def held(name: str) -> int:
        line = next(line for line in status.read_text().splitlines() if line.startswith(f"{name}:"))
        return int(line.split()[1]) * 1024

    logits = torch.randn(256, 128_256, dtype=torch.bfloat16, requires_grad=True)
    loss = (cross_entropies(logits, torch.zeros(256, dtype=torch.int64)) / 256).sum()
    clear.write_text("5")
    before = held("VmRSS")
    loss.backward()
    assert logits.grad is not None
    assert held("VmHWM") - before < logits.grad.nbytes
