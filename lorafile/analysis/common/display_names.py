"""Configurations as a reader would call them: `rank 16`, `full fine-tuning`, `untuned`; the address is on hover."""

import re
from collections import Counter

from lorafile.analysis.common.factors import sweeps
from lorafile.results.results import Results
from lorafile.specs.tables.methods import METHODS


def readable(results: Results) -> dict[str, str]:
    """Return configuration -> how a reader would call it: `rank 16`, `full fine-tuning`, `untuned`.

    Only where that is one configuration's alone; others keep their names.
    """
    shots, words = results.setting("shots"), {}
    short = {name: part for members in reversed(sweeps(results).values()) for name, part in members.items()}
    for name, method in results.methods.items():
        if method == "none":
            words[name] = f"untuned, {shots[name]:.0f} examples in the prompt" if shots[name] else "untuned"
        elif method == "full":
            words[name] = "full fine-tuning"
        elif method == "head":
            words[name] = "head only"
        else:
            settings = [part.partition("=") for part in short.get(name, name).split(",")]
            words[name] = ", ".join(_setting(key, value) for key, _, value in settings)
    counts = Counter(words.values())
    return {name: text for name, text in words.items() if text and counts[text] == 1 and text != name}


def display_names(results: Results) -> dict[str, str]:
    """Return configuration -> its readable name, or its own where it has no other; in the spec's order."""
    words = readable(results)
    return {name: words.get(name, name) for name in results.names}


def in_words(results: Results, line: str) -> str:
    """Return a sentence with configurations as a reader would call them, its first letter a capital."""
    words = readable(results)
    names = sorted(words, key=len, reverse=True)
    if names:
        pattern = "|".join(re.escape(name) for name in names)
        line = re.sub(rf"(?<!\w)({pattern})(?!\w)", lambda found: words[found.group()], line)
    return line[:1].upper() + line[1:]


def _setting(key: str, value: str) -> str:
    known = {
        "r": f"rank {value}",
        "method": METHODS[value].title if value in METHODS else value,
        "target_modules": f"modules {value}",
        "quantization": f"{value} base",
    }
    known |= {"layers_to_transform": f"layers {value}", "learning_rate": f"rate {value}", "optim": value}
    return known.get(key, f"{key} {value}" if value else key)
