"""Runs a user's function that initializes adapters, as a program of its own: FILE FUNCTION SEED THREADS MODULES.

Reads a line of JSON for each module from its input: its name, and a safetensors file with A, B and weight. Writes the
new A and B to the file next to it, and answers each line with one of its own: nothing, or what is wrong.
"""

import json
import os
import queue
import random
import sys
import threading
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from lorafile.engine.metrics.runner import LocalModules, line_of, message_of
from lorafile.engine.metrics.runner import load_file as load_module

RESULT = "new.safetensors"


def main(file: str, function: str, seed: str, threads: str, modules: str) -> None:
    """Answer every line until there are no more; what the function prints goes to the log."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    torch.set_num_threads(int(threads))
    sys.meta_path.insert(0, LocalModules(json.loads(modules)))
    generator = _seed(int(seed))
    module: Any = None
    for name, path in iter(_lines().get, None):
        try:
            module = module or load_module(file)
            _initialize(getattr(module, function), function, name, Path(path), generator)
            answer: dict[str, Any] = {}
        except BaseException as error:  # whatever it raises, exit included, is the answer
            answer = {"error": message_of(error), "line": line_of(error, file)}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


def _lines() -> "queue.Queue[tuple[str, str]]":
    """Return what is asked as it comes; the program ends when its worker does, also while the function runs."""
    lines: queue.Queue[tuple[str, str]] = queue.Queue()

    def read() -> None:
        for line in sys.stdin:
            name, path = json.loads(line)
            lines.put((name, path))
        os._exit(0)

    threading.Thread(target=read, daemon=True).start()
    return lines


def _seed(seed: int) -> torch.Generator:
    """Seed every generator that the function may draw from; return the one that it is given."""
    torch.manual_seed(seed)
    random.seed(seed)
    try:
        import numpy as np
    except ImportError:
        pass
    else:
        np.random.seed(seed % 2**32)
    return torch.Generator().manual_seed(seed)


def _initialize(function: Any, called: str, name: str, path: Path, generator: torch.Generator) -> None:
    given = load_file(path)
    shapes = {side: given[side].shape for side in "AB"}
    result = function(name, given["A"], given["B"], given["weight"], generator)
    if not isinstance(result, tuple | list) or len(result) != 2:
        raise TypeError(f"{called} should return (A, B), not {type(result).__name__}")
    new = {}
    for (side, shape), matrix in zip(shapes.items(), result, strict=True):
        if not isinstance(matrix, torch.Tensor):
            raise TypeError(
                f"the {side} that {called} returns for {name} should be a tensor, not {type(matrix).__name__}"
            )
        if matrix.shape != shape:
            wrong, right = ("×".join(map(str, each)) for each in (matrix.shape, shape))
            raise ValueError(f"the {side} that {called} returns for {name} should be {right}, not {wrong}")
        new[side] = matrix.detach().to(torch.float32).contiguous().clone()
        if not new[side].isfinite().all():
            raise ValueError(f"the {side} that {called} returns for {name} has numbers that are not finite")
    save_file(new, path.with_name(RESULT))


if __name__ == "__main__":
    main(*sys.argv[1:])
