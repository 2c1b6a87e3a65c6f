"""Sphinx's configuration: `sphinx-build -W -n docs site` builds the documentation without a network.

Every type and link resolves inside the site, except for types that `nitpick_ignore_regex` lists.
"""

import re
from collections.abc import Callable
from typing import Any

from docutils import nodes

from lorafile import __version__

project = "Lorafile"
author = "the Lorafile authors"
copyright = "2026, the Lorafile authors"  # noqa: A001 - the name that Sphinx reads
version = release = __version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx_click", "sphinx_copybutton"]
exclude_patterns = ["_build", "pictures", "*.py"]
default_role = "literal"  # docstrings write code in single backticks
smartquotes = False  # they would join the hyphens of options
nitpicky = True
nitpick_ignore_regex = [
    (r"py:.*", r"(pathlib\.)?Path|collections\.abc\.(Mapping|Sequence)"),
    (r"py:.*", r"(pd|pandas|pandas\..*)\.DataFrame"),
    # Lorafile's own types that a user passes on and never takes apart.
    (
        r"py:.*",
        r"(.*\.)?(Checkpoint|Graph|GraphNode|Lock|Machines|OutcomeKey|Price|Recorded|Spec|Unfinished|VarianceEstimate)",
    ),
    (r"py:.*", r"(.*\.)?(AnalysisTable|ClaimTable|PublishedTable|VerdictTable|CostEstimate|TuningStatus)"),
]

myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 4
suppress_warnings = ["myst.header"]  # a page of the repository may begin below its first level

autodoc_class_signature = "mixed"
autodoc_member_order = "bysource"
toc_object_entries_show_parents = "hide"
autodoc_typehints = "description"
python_use_unqualified_type_names = True

html_theme = "pydata_sphinx_theme"
html_title = f"Lorafile {release}"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_sidebars: dict[str, list[str]] = {page: [] for page in ("index", "tutorial", "faq", "comparison")}
html_show_sourcelink = False
html_show_search_summary = False  # summaries are fetched, which a page opened as a file may not do
html_copy_source = False
html_theme_options = {
    "navbar_align": "left",
    "navbar_end": ["theme-switcher"],
    "header_links_before_dropdown": 6,
    "secondary_sidebar_items": ["page-toc"],
    "footer_start": ["copyright"],
    "footer_end": [],
    "show_toc_level": 2,
    "pygments_light_style": "a11y-high-contrast-light",
    "pygments_dark_style": "a11y-high-contrast-dark",
}
copybutton_prompt_text = r"\$ |> |>>> |\.\.\. "
copybutton_prompt_is_regexp = True
copybutton_only_copy_prompt_lines = True


def mark_up_help(_app: object, _context: object, lines: list[str]) -> None:
    """Show examples in a command's help as code, and keep a pattern such as `rank/*` from beginning an emphasis."""
    escaped = [line.replace("*", r"\*") for line in lines]
    lines[:] = [re.sub(r"Example: (.+)", lambda match: f"Example: ``{_plain(match[1])}``", line) for line in escaped]


def _plain(code: str) -> str:
    return code.replace(r"\*", "*")


def set_dashes(_app: object, doctree: nodes.document, _name: str) -> None:
    """Set the dash between a parameter and what it is."""
    for text in list(doctree.findall(nodes.Text)):
        if text.astext() == " -- ":
            text.parent.replace(text, nodes.Text(" – "))


def setup(app: Any) -> None:
    """Connect what changes the text of commands and docstrings."""
    connect: Callable[..., Any] = app.connect
    connect("doctree-resolved", set_dashes)
    for part in ("description", "options"):
        connect(f"sphinx-click-process-{part}", mark_up_help)
