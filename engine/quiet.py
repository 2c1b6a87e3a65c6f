"""Silences two messages of bitsandbytes, and no other. Imports neither it nor torch."""

import logging
from collections.abc import Callable

_NOISE = {
    "bitsandbytes.autograd._functions": "inputs will be cast",  # once for each layer and step
    "bitsandbytes.backends.cpu.ops": "kernels-community",  # an optional kernel that we keep off anyway
}


def quiet_bitsandbytes() -> None:
    """Keep the two messages from every log; calling it again changes nothing."""
    for name, phrase in _NOISE.items():
        logger = logging.getLogger(name)
        if not logger.filters:
            logger.addFilter(_without(phrase))


def _without(phrase: str) -> Callable[[logging.LogRecord], bool]:
    return lambda record: phrase not in record.getMessage()
