"""The documentation's sources: links, anchors, specs, commands, marks, and a page for every public function."""

import inspect
import re
import sys
import tomllib
from functools import cache
from itertools import pairwise
from pathlib import Path

import click
import pytest
from markdown_it import MarkdownIt

from lorafile import Study, specs
from lorafile.cli.main import main
from lorafile.specs.schema import json_schema

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
sys.path.insert(0, str(DOCS))
import transcripts  # noqa: E402 - a script of the documentation, not a module of the package

PAGES = [*sorted(DOCS.rglob("*.md")), ROOT / "README.md", ROOT / "CONTRIBUTING.md", *ROOT.glob("examples/*/README.md")]
WRONG = {DOCS / "errors.md"}  # whose specs are wrong on purpose
MOST_NOT_RUN = 20


def name(page: Path) -> str:
    return str(page.relative_to(ROOT))


@cache
def parsed(page: Path) -> list:
    return MarkdownIt("commonmark").enable("table").parse(page.read_text(encoding="utf-8"))


@cache
def anchors(page: Path) -> set[str]:
    """The headings of a page as GitHub and MyST make anchors of them."""
    tokens = parsed(page)
    titles = [after.content for token, after in pairwise(tokens) if token.type == "heading_open"]
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def links(page: Path) -> list[str]:
    inline = [child for token in parsed(page) for child in token.children or ()]
    targets = [child.attrs.get("href") or child.attrs.get("src") for child in inline]
    return [str(target) for target in targets if target]


def fences(page: Path, *languages: str) -> list[tuple[int, str]]:
    """The blocks of a page in some languages, each with the line that it begins at."""
    tokens = [token for token in parsed(page) if token.type == "fence" and token.info in languages]
    return [(token.map[0] + 1, token.content) for token in tokens]


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_links_inside_the_repository_resolve(page: Path) -> None:
    for link in links(page):
        if re.match(r"https?:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), f"{name(page)}: there is no {path}"
        assert not anchor or anchor in anchors(target), f"{name(page)}: {name(target)} has no heading #{anchor}"


@pytest.mark.parametrize("page", [page for page in PAGES if page not in WRONG], ids=name)
def test_toml_is_a_spec_or_a_part_of_one(page: Path, tmp_path: Path) -> None:
    known = {*json_schema()["properties"], "cluster"}
    for line, text in fences(page, "toml"):
        tables = tomllib.loads(text)
        assert set(tables) <= known, f"{name(page)}:{line}: {set(tables) - known}"
        if {"study", "model", "data"} <= set(tables):
            file = tmp_path / "study.toml"
            file.write_text(text, encoding="utf-8")
            for folder in ("metrics", "analyses"):
                (tmp_path / folder).mkdir(exist_ok=True)
            assert specs.load(file).configurations, f"{name(page)}:{line}"


def lines_of_lora(page: Path) -> list[str]:
    """Every `lora …` that a page shows, in blocks and in code within its text; each as one line."""
    text = page.read_text(encoding="utf-8")
    blocks = "\n".join(content for _, content in fences(page, "sh", "console"))
    shown = re.findall(r"(?:^|&& |\$ )(lora [^#|&;\n]+)", blocks, re.MULTILINE)
    return shown + re.findall(r"`(lora [a-z][^`\n]*)`", text)


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_commands_exist_and_take_the_options_that_are_shown(page: Path) -> None:
    if page in WRONG:
        return
    for line in lines_of_lora(page):
        words = line.split()[1:]
        command: click.Command = main
        while words and isinstance(command, click.Group) and words[0] in command.commands:
            command = command.commands[words.pop(0)]
        if isinstance(command, click.Group):  # `lora state`, `lora --debug …`
            assert command is not main or not words or words[0].startswith("-"), f"{name(page)}: {line}"
        commands = [main, command]
        if isinstance(command, click.Group) and words[:1] == ["…"]:  # `lora state … --json`: of some of its commands
            commands += command.commands.values()
        taken = {option for each in commands for parameter in each.params for option in parameter.opts} | {"--help"}
        given = {word.partition("=")[0].rstrip(",.:)") for word in words if re.match(r"--?[a-z]", word)}
        assert given <= taken, f"{name(page)}: {line}: {given - taken}"


@pytest.mark.parametrize("page", sorted(DOCS.rglob("*.md")), ids=name)
def test_every_command_is_run_or_says_why_not(page: Path) -> None:
    marked = {block.start: block for block in transcripts.blocks(page)}
    for line, _ in fences(page, "sh", "console"):
        assert line in marked, f"{name(page)}:{line}: a mark of docs/transcripts.py should stand above this block"
    for block in marked.values():
        assert block.action != "run" or block.language in ("console", "python"), block.place
        assert block.argument or block.action == "run", block.place


def test_few_commands_are_not_run() -> None:
    every = [block for page in DOCS.rglob("*.md") for block in transcripts.blocks(page)]
    left_out = [block.place for block in every if block.action == "not run"]
    assert len(left_out) <= MOST_NOT_RUN, left_out
    assert sum(block.action == "run" for block in every) >= 60


def test_every_public_method_of_a_study_has_an_example_that_runs() -> None:
    shown = "\n".join(
        "\n".join(block.body)
        for page in (DOCS / "reference").glob("*.md")
        for block in transcripts.blocks(page)
        if block.action == "run" and block.language == "python"
    )
    methods = [method for method, _ in inspect.getmembers(Study, callable) if not method.startswith("_")]
    assert [method for method in methods if f".{method}(" not in shown] == []


@pytest.mark.parametrize("page", sorted((DOCS / "reference").glob("*.md")), ids=name)
def test_a_class_of_the_reference_is_there(page: Path) -> None:
    for dotted in re.findall(r"^\.\. auto(?:class|function):: (lorafile\.\S+)", page.read_text("utf-8"), re.MULTILINE):
        module, _, attribute = dotted.rpartition(".")
        __import__(module)
        assert inspect.getdoc(getattr(sys.modules[module], attribute)), dotted


@pytest.mark.parametrize(
    ("text", "mask"),
    [
        ("in 2 min 5 s on cpu", "in QUANTITY on cpu"),
        ("25 s of work, about 12 s with 2 workers; 2.19\n  MB", "QUANTITY of work; QUANTITY"),
        ("key f66354c53292ba77", "key DIGEST"),
        ("made 2026-11-30T20:48:17+00:00", "made DATE"),
        ("Plan: 51 to run.", "Plan: 51 to run."),
        ("91.1 ± 1.0 % (3 seeds)", "FIGURE ± SHARE (3 seeds)"),
    ],
)
def test_what_differs_between_machines_is_masked(text: str, mask: str) -> None:
    block = transcripts.Block(DOCS / "tutorial.md", "run", "", "console", 1, ())
    assert transcripts.masked(text.split("\n"), block) == mask


def test_a_page_is_rewritten_and_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transcripts, "DOCS", tmp_path)
    page = tmp_path / "page.md"
    page.write_text(
        "<!-- file: words.txt -->\n```text\none\ntwo\n```\n\n<!-- run: exit 2 -->\n```console\n$ cat words.txt\n"
        "$ exit 2\n```\n\n<!-- run -->\n```python\n>>> for number in range(2):\n...     print(number)\n```\n",
        encoding="utf-8",
    )
    work = tmp_path / "work"
    work.mkdir()
    assert transcripts.visit(page, work, check=False) == []
    assert "$ cat words.txt\none\ntwo\n$ exit 2\n" in page.read_text(encoding="utf-8")
    assert ">>> for number in range(2):\n...     print(number)\n0\n1\n```" in page.read_text(encoding="utf-8")
    assert transcripts.visit(page, work, check=True) == []
    page.write_text(page.read_text(encoding="utf-8").replace("\ntwo\n$", "\nthree\n$"), encoding="utf-8")
    (mistake,) = transcripts.visit(page, work, check=True)
    assert "`$ cat words.txt` prints something else" in mistake
