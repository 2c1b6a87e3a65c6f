"""The chat at a terminal: questions, answers side by side, and the commands that begin with a slash."""

from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from lorafile.errors import NodeError

if TYPE_CHECKING:
    from lorafile.engine.inference.chat import ChatSession

HELP = "/base on|off shows or hides the base, /reset clears the conversation, /quit (or Ctrl-D) exits."


def converse(session: "ChatSession", columns: dict[str, Any], out: Console) -> None:
    """Ask and answer until `/quit` or the end of the input."""
    names = list(session.responders)
    while True:
        try:
            line = input("> " if out.is_terminal else "").strip()
        except EOFError:
            if out.is_terminal:
                out.print()
            return
        if line == "/quit":
            return
        if line.startswith("/"):
            names = _slash_command(session, line, names, out)
        elif line:
            try:
                show_answers(session.ask(line, columns, names), out)
            except NodeError as error:
                out.print(f"[red]{escape(str(error))}[/]")


def _slash_command(session: "ChatSession", line: str, names: list[str], out: Console) -> list[str]:
    """Run a slash command and return the names of those that answer from now on."""
    word, _, rest = line.partition(" ")
    if word == "/reset":
        session.reset()
        out.print("[dim]Forgotten.[/]")
    elif word == "/base" and rest in ("on", "off"):
        if len(session.responders) == 1:
            out.print("[dim]Only the base is loaded.[/]")
            return names
        out.print(f"[dim]The base is {rest}.[/]")
        return [name for name in session.responders if rest == "on" or name != "base"]
    else:
        out.print(f"[dim]{escape(HELP)}[/]")
    return names


def show_answers(answers: dict[str, str], out: Console) -> None:
    """Show answers side by side on a terminal, one under the other elsewhere."""
    if not out.is_terminal or len(answers) == 1:
        for name, text in answers.items():
            out.print(f"[bold]{name}:[/] {escape(text)}")
        return
    table = Table(box=None, pad_edge=False, expand=True, header_style="bold", padding=(0, 2, 0, 0))
    for name in answers:
        table.add_column(name, ratio=1, overflow="fold")
    table.add_row(*map(escape, answers.values()))
    out.print(table)
