"""Runs what the pages of the documentation show, and pastes the output below each command.

`python docs/transcripts.py` rewrites the pages; `python docs/transcripts.py --check` only compares, and ends with 1
where a command ends otherwise than its page says or prints something else. Names of pages after that limit it to these
(and to the pages that they go on from). A page has a temporary directory to itself. A comment above a block says what
happens with it there:

    <!-- file: NAME -->         the block is written to NAME
    <!-- append: NAME -->       the block is added at the end of NAME
    <!-- run -->                its commands (`$ `, continued by `> `) run in bash, one by one, in a terminal of 80
                                columns; or its statements (`>>> `, `... `) run in one Python session for the page
    <!-- run: exit 3 -->        the last command ends with 3, the others with 0
    <!-- run: last 3 -->        only the last three lines are shown, after a line with …
    <!-- run: first 9 -->       only the first nine, before one
    <!-- run: figures -->       all its numbers are measured: words alone are compared
    <!-- run: shape -->         what is printed depends on the machine: only the exit code is compared
    <!-- run: hidden -->        the commands alone are shown
    <!-- not run: REASON -->    nothing happens
    <!-- after: PAGE -->        anywhere: the page begins with what PAGE, in this folder of sources, has left

What differs between machines and days is left out of a comparison: `MASKS`.
"""

import argparse
import os
import pty
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

DOCS = Path(__file__).resolve().parent
COLUMNS = 80
MARK = re.compile(r"<!-- (file|append|run|not run|after)(?:: (.*?))? -->")
OPTION = re.compile(r"exit \d+|first \d+|last \d+|figures|shape|hidden")
NUMBER = r"[−-]?\d[\d,]*(?:\.\d+)?(?:e[+-]?\d+)?"
UNITS = r"ms|s|min|h|days?|[KMGT]?i?B|points|tokens/s"
MASKS = (
    (r"\b\d{4}-\d\d-\d\d(?:[T ]\d\d:\d\d(?::\d\d)?(?:\+\d\d:\d\d)?)?", "DATE"),
    (r"(?:/[\w.+-]+){2,}", "PATH"),
    (r"\b(?=[a-f]*\d)[0-9a-f]{6,64}\b…?", "DIGEST"),
    (rf", about {NUMBER} (?:{UNITS}) with \d+ workers", ""),  # how many cores there are
    (rf"{NUMBER}\s+(?:{UNITS})\b(?:\s+{NUMBER}\s+(?:{UNITS})\b)*", "QUANTITY"),
    (rf"{NUMBER}\s+%", "SHARE"),
    (r"[−-]?\d[\d,]*\.\d+(?:e[+-]?\d+)?", "FIGURE"),
    (r"[▁▂▃▄▅▆▇█]+", "CURVE"),
    (r"-{3,}", "RULE"),  # of a table, as wide as its numbers
    (r"\s+", " "),
)
# One session of Python for a page: a statement per line in, its output and an end mark out.
SESSION = """\
import json, sys, traceback
names = {"__name__": "__main__"}
for line in sys.stdin:
    try:
        exec(compile(json.loads(line), "<page>", "single"), names)
    except Exception as error:
        print(f"{type(error).__name__}: {error}")
    print("\\0", flush=True)
"""


@dataclass(frozen=True)
class Block:
    """One marked block of a page.

    :ivar action: `file`, `append`, `run` or `not run`
    :ivar start: the number of the first line inside its fence
    :ivar body: its lines
    """

    page: Path
    action: str
    argument: str
    language: str
    start: int
    body: tuple[str, ...]

    @property
    def options(self) -> list[str]:
        """What a `run` mark says: `exit 3`, `last 4`, …."""
        return [option for option in re.split(r", *", self.argument) if option]

    def number(self, name: str) -> int | None:
        """Return the number of an option such as `exit 3`; None where it is not given."""
        return next((int(option.split()[1]) for option in self.options if option.startswith(f"{name} ")), None)

    @property
    def place(self) -> str:
        """Where the block stands."""
        return f"{self.page.relative_to(DOCS.parent)}:{self.start}"


class TranscriptError(Exception):
    """A page does not show what its commands do."""


def pages() -> list[Path]:
    """Return every page of the documentation."""
    return sorted(DOCS.rglob("*.md"))


def blocks(page: Path) -> list[Block]:
    """Return the marked blocks of a page.

    :raises TranscriptError: when a mark stands above no block, or cannot be read
    """
    lines = page.read_text(encoding="utf-8").splitlines()
    found, number = [], 0
    while number < len(lines):
        mark = MARK.fullmatch(lines[number])
        number += 1
        if not mark or mark[1] == "after":
            continue
        opening = re.fullmatch(r"(`{3,})(\w+)", lines[number])
        if not opening:
            raise TranscriptError(f"{page}:{number}: no block with a language follows this mark")
        end = next(i for i in range(number + 1, len(lines)) if lines[i] == opening[1])
        block = Block(page, mark[1], mark[2] or "", opening[2], number + 1, tuple(lines[number + 1 : end]))
        if block.action == "run" and not all(OPTION.fullmatch(option) for option in block.options):
            raise TranscriptError(f"{block.place}: this mark is not known: {mark[0]}")
        found.append(block)
        number = end
    return found


def begins_after(page: Path) -> Path | None:
    """Return the page whose directory this one begins with."""
    marks = (MARK.fullmatch(line) for line in page.read_text(encoding="utf-8").splitlines())
    return next((DOCS / mark[2] for mark in marks if mark and mark[1] == "after"), None)


def steps(body: tuple[str, ...], prompt: str, more: str) -> Iterator[tuple[list[str], list[str]]]:
    """Yield each command's lines as they are shown, and the lines of output below them."""
    shown: list[str] = []
    output: list[str] = []
    for line in body:
        if line.startswith(prompt):
            if shown:
                yield shown, output
            shown, output = [line], []
        elif shown and not output and line.startswith(more.rstrip()) and (line.startswith(more) or line == more[:-1]):
            shown.append(line)
        else:
            output.append(line)
    if shown:
        yield shown, output


class Terminal:
    """Where the commands of a page run: bash in a terminal of 80 columns, and one Python session."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.session: subprocess.Popen[str] | None = None
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith(("LORA_", "HF_"))},
            **{"TERM": "dumb", "NO_COLOR": "1", "COLUMNS": str(COLUMNS), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"},
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        }

    def bash(self, command: str) -> tuple[str, int]:
        """Return what a command prints, on both streams, and its exit code."""
        ours, theirs = pty.openpty()
        options = {"cwd": self.directory, "env": self.environment, "stdout": theirs, "stderr": theirs}
        script = f"stty cols {COLUMNS} rows 40 < /dev/fd/1 2> /dev/null; {command}"
        process = subprocess.Popen(["bash", "-c", script], stdin=subprocess.DEVNULL, **options)  # type: ignore[call-overload]
        os.close(theirs)
        output = b""
        with suppress(OSError):  # Linux's end of a terminal
            while part := os.read(ours, 1 << 16):
                output += part
        os.close(ours)
        text = output.decode(errors="replace").replace(str(self.directory), "/home/me/study")
        lines = text.replace("\r\n", "\n").split("\n")
        # A line that says what takes long is written over: what comes last is what stays.
        return "\n".join(line.split("\r")[-1].replace("\x1b[K", "") for line in lines), process.wait()

    def python(self, statement: str) -> tuple[str, int]:
        """Return what a statement prints in the page's session."""
        import json

        if self.session is None:
            options = {"cwd": self.directory, "env": self.environment, "text": True, "stderr": subprocess.DEVNULL}
            pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
            self.session = subprocess.Popen([sys.executable, "-c", SESSION], **options, **pipes)  # type: ignore[call-overload]
        assert self.session is not None
        assert self.session.stdin is not None
        assert self.session.stdout is not None
        self.session.stdin.write(json.dumps(statement + "\n") + "\n")
        self.session.stdin.flush()
        output = ""
        for line in self.session.stdout:
            if line.endswith("\0\n"):
                return output + line[:-2], 0
            output += line
        return output, self.session.wait()

    def close(self) -> None:
        """End the session."""
        if self.session is not None:
            self.session.communicate()


def cut(lines: list[str], block: Block) -> list[str]:
    """Return the lines of an output that its block shows."""
    first, last = block.number("first"), block.number("last")
    if "hidden" in block.options:
        return []
    if first is not None and len(lines) > first:
        return [*lines[:first], "…"]
    if last is not None and len(lines) > last:
        return ["…", *lines[-last:]]
    return lines


def masked(lines: list[str], block: Block) -> str:
    """Return an output without what differs between machines."""
    if "shape" in block.options:
        return ""
    text = "\n".join(lines)
    for pattern, word in MASKS:
        text = re.sub(pattern, word, text)
    if "figures" in block.options:
        text = re.sub(NUMBER, "FIGURE", text)
    return text.strip()


def run(block: Block, terminal: Terminal) -> tuple[list[str], list[str]]:
    """Run a block; return its lines with what is printed now, and what is wrong with those of the page."""
    prompt, more = (">>> ", "... ") if block.language == "python" else ("$ ", "> ")
    body: list[str] = []
    wrong = []
    parts = list(steps(block.body, prompt, more))
    for number, (shown, before) in enumerate(parts, 1):
        text = "\n".join([shown[0][len(prompt) :], *(line[len(more) :] for line in shown[1:])])
        output, code = (terminal.python if block.language == "python" else terminal.bash)(text)
        wanted = (block.number("exit") or 0) if number == len(parts) else 0
        if code != wanted:
            wrong.append(f"{block.place}: `{shown[0]}` ended with {code}, not {wanted}:\n{output}")
        printed = cut([line.expandtabs().rstrip() for line in output.strip("\n").splitlines()], block)
        if masked(printed, block) != masked(before, block):
            wrong.append(
                f"{block.place}: `{shown[0]}` prints something else:\n--- the page\n{masked(before, block)}\n"
                f"--- now\n{masked(printed, block)}"
            )
        keep = masked(printed, block) == masked(before, block) and before
        body += [*shown, *(before if keep else printed)]
    return body, wrong


def visit(page: Path, directory: Path, check: bool) -> list[str]:
    """Run a page in a directory, and rewrite it unless it is only checked; return what is wrong with it."""
    terminal = Terminal(directory)
    lines = page.read_text(encoding="utf-8").splitlines()
    wrong: list[str] = []
    shift = 0
    for block in blocks(page):
        file = directory / block.argument
        text = "\n".join(block.body) + "\n"
        if block.action == "file":
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text, encoding="utf-8")
        elif block.action == "append":
            file.write_text(file.read_text(encoding="utf-8") + "\n" + text, encoding="utf-8")
        elif block.action == "run":
            body, mistakes = run(block, terminal)
            # When pages are written, other output is what was asked for; another exit code is a mistake all the same.
            wrong += mistakes if check else [mistake for mistake in mistakes if " ended with " in mistake]
            start = block.start + shift
            lines[start : start + len(block.body)] = body
            shift += len(body) - len(block.body)
    terminal.close()
    if not check:
        page.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return wrong


def stage(page: Path, root: Path) -> Path:
    """Return the directory that a page runs in: empty, or a copy of what another page has left."""
    directory = root / page.relative_to(DOCS).with_suffix("")
    directory.parent.mkdir(parents=True, exist_ok=True)
    source = begins_after(page)
    if source is None:
        directory.mkdir()
    else:
        shutil.copytree(root / source.relative_to(DOCS).with_suffix(""), directory, symlinks=True)
    return directory


def main() -> int:
    """Run the pages that are named, or all; return 1 where one is wrong."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--check", action="store_true", help="compare only")
    parser.add_argument("--jobs", type=int, default=1, help="pages at a time")
    parser.add_argument("names", nargs="*", help="pages; all, where none is named")
    options = parser.parse_args()
    wanted = [Path(name).resolve() for name in options.names] or pages()
    wanted = [page for page in wanted if any(block.action == "run" for block in blocks(page))]
    sources = {begins_after(page) for page in wanted} - {None}
    wrong: list[str] = []
    with tempfile.TemporaryDirectory() as name, ThreadPoolExecutor(options.jobs) as pool:

        def play(page: Path) -> list[str]:
            began = time.monotonic()
            mistakes = visit(page, stage(page, Path(name)), options.check or page not in wanted)
            print(f"{time.monotonic() - began:6.1f} s  {page.relative_to(DOCS.parent)}", flush=True)
            return mistakes

        first = [page for page in pages() if page in sources or (page in wanted and begins_after(page) is None)]
        for group in (first, [page for page in wanted if page not in first]):
            wrong += [mistake for mistakes in pool.map(play, group) for mistake in mistakes]
    print("\n\n".join(wrong))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
