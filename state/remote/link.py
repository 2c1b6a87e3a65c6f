"""Whether a state has a remote at all: all that is imported where it has none."""

import re
from pathlib import Path

LINK = "remote.json"  # in a local state: the URL of its remote
URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):/+(.*)")  # a path that is a URL has lost one of its two slashes


def is_url(name: str | Path) -> bool:
    """Return whether a state's name is a URL, and not a directory."""
    return URL.match(str(name)) is not None


def has_remote(name: str | Path) -> bool:
    """Return whether a state is named by a URL, or by the directory that is a URL's local state."""
    return is_url(name) or (Path(name) / LINK).is_file()
