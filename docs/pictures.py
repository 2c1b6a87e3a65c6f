"""Makes the README's picture: `lora plan` in a terminal next to the first screen of its report.

Run `python docs/pictures.py STUDY REPORT`, with the page that `lora report` of STUDY wrote, where Chromium is
installed. The terminal shows what the command prints for an empty state. It writes docs/pictures/overview.png.
"""

import io
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from rich.console import Console
from rich.terminal_theme import MONOKAI
from rich.text import Text

HERE = Path(__file__).resolve().parent
COLUMNS, WIDTH, HEIGHT = 96, 2000, 940
_PAGE = """<!doctype html><meta charset="utf-8"><style>
body {{ margin: 0; display: flex; gap: 24px; padding: 24px; background: #e8e9ec; height: {height}px;
  box-sizing: border-box; }}
.terminal {{ flex: 0 0 {terminal}px; overflow: hidden; background: #0c0c0c; border-radius: 10px; padding: 16px;
  color: #e6e6e6; }}
.terminal pre {{ margin: 0; font-size: 14.6px; line-height: 1.32; }}
iframe {{ flex: 1; border: 0; border-radius: 10px; background: white; }}
</style><div class="terminal">{text}</div><iframe src="{report}"></iframe>"""


def printed(study: Path) -> str:
    """Return what `lora plan` prints in a terminal of an empty state, in colour."""
    with tempfile.TemporaryDirectory() as empty:
        command = f"stty cols {COLUMNS} rows 60; exec {shutil.which('lora')} plan {study} --state {empty}/state"
        told = subprocess.run(["script", "-qec", f"sh -c '{command}'", "/dev/null"], capture_output=True, text=True)
    return told.stdout.replace("\r", "")


def terminal(study: Path) -> str:
    """Return the command and what it prints as HTML."""
    console = Console(record=True, width=COLUMNS, file=io.StringIO(), force_terminal=True)
    console.print("[bold green]$[/] lora plan")
    console.print(Text.from_ansi(printed(study)))
    return console.export_html(theme=MONOKAI, inline_styles=True, code_format="<pre>{code}</pre>")


def main() -> None:
    """Draw the picture of the study and the report that the command line names."""
    study, report = Path(sys.argv[1]).resolve(), Path(sys.argv[2]).resolve()
    out = HERE / "pictures" / "overview.png"
    out.parent.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as directory:
        page = Path(directory) / "page.html"
        text = _PAGE.format(height=HEIGHT, terminal=860, text=terminal(study), report=report.as_uri())
        page.write_text(text, encoding="utf-8")
        command = ["chromium", "--headless", "--no-sandbox", "--hide-scrollbars", "--allow-file-access-from-files"]
        command += [f"--window-size={WIDTH},{HEIGHT}", "--virtual-time-budget=15000", f"--screenshot={out}"]
        subprocess.run([*command, page.as_uri()], check=True, capture_output=True)
    print(f"Wrote {out}.")


if __name__ == "__main__":
    main()
