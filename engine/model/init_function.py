"""A user's function that gives A and B their initial values, called for each adapted module in a process of its own.

It runs on the processor and sees copies, so that nothing that it does changes the base, a generator, or another run.
"""

import contextlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors.torch import load_file, save_file

from lorafile.engine.model.init_runner import RESULT
from lorafile.errors import NodeError

Call = Callable[[str, dict[str, torch.Tensor]], dict[str, torch.Tensor]]
_RUNNER = Path(__file__).with_name("init_runner.py")
_SETTING = "lora.init_lora_weights"


class _Place(NamedTuple):
    """A and B of a layer, and the weight that they update, as (out, in)."""

    a: torch.Tensor
    b: torch.Tensor
    weight: torch.Tensor


@torch.no_grad()
def initialize_by_function(model: Any, code: dict[str, Any]) -> None:
    """Give each adapted module the A and B that a function returns; draws its seed from the global generator.

    :param code: `file`, `function`, `source`, and `modules` that it imports
    :raises NodeError: with file, line and exception when the function fails
    """
    from peft.tuners.lora import LoraLayer

    seed = int(torch.randint(2**31, (1,)))
    layers = {name: layer for name, layer in model.get_base_model().named_modules() if isinstance(layer, LoraLayer)}
    with _process(code, seed) as call:
        for name, layer in layers.items():
            place = _place(name, layer)
            matrices = {"A": place.a, "B": place.b, "weight": place.weight}
            new = call(name, {side: _copy(matrix) for side, matrix in matrices.items()})
            place.a.copy_(new["A"])
            place.b.copy_(new["B"])
            for variant in filter(None, [layer.lora_variant.get("default")]):
                variant.init(layer, "default")  # DoRA's magnitudes follow from A and B


def _copy(matrix: torch.Tensor) -> torch.Tensor:
    return matrix.detach().to("cpu", torch.float32).contiguous().clone()


def _place(name: str, layer: Any) -> _Place:
    try:
        weight = _weight(layer.get_base_layer())
    except (AttributeError, TypeError) as error:
        raise NodeError(f"{_SETTING}: the weight of {name} cannot be read, which a function is given.") from error
    if "default" in layer.lora_embedding_A:
        return _Place(layer.lora_embedding_A["default"], layer.lora_embedding_B["default"], weight.T)
    a, b = layer.lora_A["default"].weight, layer.lora_B["default"].weight
    return _Place(a, b, weight.T if getattr(layer, "fan_in_fan_out", False) else weight)


def _weight(layer: Any) -> torch.Tensor:
    """Return a layer's weight; one of 8 bits without PEFT, which on a processor moves its scales away."""
    from peft.utils.integrations import dequantize_module_weight

    if type(layer.weight).__name__ != "Int8Params":
        weight: torch.Tensor = dequantize_module_weight(layer)
        return weight
    scales = layer.weight.SCB if layer.weight.SCB is not None else layer.state.SCB
    whole: torch.Tensor = layer.weight.data.float() * scales.float().view(-1, 1) / 127
    return whole


@contextlib.contextmanager
def _process(code: dict[str, Any], seed: int) -> Iterator[Call]:
    """Start the function's process, and end it."""
    with tempfile.TemporaryDirectory(prefix="lorafile-init-") as directory:
        root = Path(directory)
        file, modules = _written(code, root / "code")
        # -P: the directory in which lora runs is not on its path. A session of its own: Ctrl-C is for us.
        command = [sys.executable, "-P", str(_RUNNER), str(file), code["function"], str(seed)]
        with subprocess.Popen(  # noqa: S603  (the user's own file, named in the user's own spec)
            [*command, str(torch.get_num_threads()), json.dumps(modules)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=os.environ | {"CUDA_VISIBLE_DEVICES": ""},
            text=True,
            start_new_session=True,
        ) as process:
            try:
                yield lambda name, tensors: _call(process, code, root, name, tensors)
            finally:
                process.kill()


def _call(
    process: "subprocess.Popen[str]", code: dict[str, Any], root: Path, name: str, tensors: dict[str, torch.Tensor]
) -> dict[str, torch.Tensor]:
    assert process.stdin is not None and process.stdout is not None  # noqa: S101 (they are pipes)
    path = root / "old.safetensors"
    save_file(tensors, path)
    with contextlib.suppress(BrokenPipeError):  # it is gone, which the answer that does not come tells
        process.stdin.write(json.dumps([name, str(path)]) + "\n")
        process.stdin.flush()
    line = process.stdout.readline()
    called = f"{_SETTING}: {code['function']} of {code['file']}"
    if not line:
        raise NodeError(f"{called} ended its process with code {process.wait()} at {name}.")
    answer = json.loads(line)
    if answer:
        at = f", line {answer['line']}" if answer["line"] else ""
        raise NodeError(f"{called}{at}: {answer['error']}")
    return load_file(root / RESULT)


def _written(code: dict[str, Any], folder: Path) -> tuple[Path, dict[str, str]]:
    """Write the code to files; return the function's, and dotted name -> file of the modules that it imports."""
    folder.mkdir()
    file = folder / Path(code["file"]).name
    file.write_text(code["source"], encoding="utf-8")
    modules = {}
    for number, (dotted, (name, text)) in enumerate(code["modules"].items()):
        place = folder / str(number) / name
        place.parent.mkdir()
        if name:
            place.write_text(text, encoding="utf-8")
        modules[dotted] = str(place)
    return file, modules
