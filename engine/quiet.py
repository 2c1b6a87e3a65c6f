"""Silences a few messages of libraries that tell a user nothing, and no other. Imports none of them."""

import logging
import warnings
from collections.abc import Callable

_NOISE = {
    "bitsandbytes.autograd._functions": "inputs will be cast",  # once for each layer and step
    "bitsandbytes.backends.cpu.ops": "kernels-community",  # an optional kernel that we keep off anyway
    # torchao, which peft imports: its kernels for other machines, and what it does to torch
    "torchao": "Failed to load",
    "torchao.kernel.intmm": "no triton",
    "torch.utils._pytree": "is an Enum subclass",
    "transformers.modeling_utils": "LOAD REPORT",  # which we read ourselves
}


def quiet_libraries() -> None:
    """Keep these messages from every log; calling it again changes nothing."""
    for name, phrase in _NOISE.items():
        logger = logging.getLogger(name)
        if not logger.filters:
            logger.addFilter(_without(phrase))
    # peft 0.21 hands its prefixes over under a name that transformers 5.24 gave up; nothing that a user could change
    warnings.filterwarnings("ignore", message="`past_key_values` is deprecated", category=FutureWarning)


def _without(phrase: str) -> Callable[[logging.LogRecord], bool]:
    return lambda record: phrase not in record.getMessage()
