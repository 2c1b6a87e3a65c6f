"""What every command has in its help, what `lora` alone prints, and what a shell completes."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from lorafile.cli.main import main

ROOT = Path(__file__).parents[2]


def commands(of: click.Command = main, name: str = "lora") -> Iterator[tuple[str, click.Command]]:
    """Yield name and command of all that can be called."""
    yield name, of
    for below, member in of.commands.items() if isinstance(of, click.Group) else ():
        yield from commands(member, f"{name} {below}")


COMMANDS = dict(commands())


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_has_a_summary_an_example_and_a_page(name: str) -> None:
    command = COMMANDS[name]
    summary, *rest = (command.help or "").split("\n\n")
    assert len(summary) <= 64 if command is main else len(summary) <= 60, summary
    assert any(f"Example: {name}" in part for part in rest)
    page = (command.epilog or "").removeprefix("Documentation: ")
    assert (ROOT / page).is_file()


@pytest.mark.parametrize("columns", [60, 80, 120])
def test_summaries_are_printed_whole(columns: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    for name, command in COMMANDS.items():
        if isinstance(command, click.Group):
            done = CliRunner().invoke(main, name.split()[1:])
            assert done.exit_code == 0
            assert max(map(len, done.stdout.splitlines())) <= columns or columns < 80
            words = " ".join(done.stdout.split())
            for member in command.commands.values():
                assert (member.help or "").split("\n")[0] in words


@pytest.mark.parametrize("name", [name for name, command in COMMANDS.items() if isinstance(command, click.Group)])
def test_a_group_alone_prints_its_help(name: str) -> None:
    arguments = name.split()[1:]
    alone, asked = (CliRunner().invoke(main, words) for words in (arguments, [*arguments, "--help"]))
    assert (alone.exit_code, alone.stderr) == (0, "")
    assert alone.stdout == asked.stdout


def test_the_help_names_every_command_once() -> None:
    lines = CliRunner().invoke(main).stdout.splitlines()
    listed = [line.split()[0] for line in lines if line.startswith("  ") and line.split()[0] in main.commands]
    assert sorted(listed) == sorted(main.commands)


def test_the_version_names_python_and_torch() -> None:
    from importlib.metadata import version

    from lorafile import __version__

    words = CliRunner().invoke(main, ["--version"]).stdout.split()
    assert words[:4] == ["lora", __version__, "(Python", f"{sys.version.split()[0]},"]
    assert "".join(words[4:]) == f"torch{version('torch')})"


def completed(line: str, cwd: Path) -> list[str]:
    """Return what bash is offered for the last word of a line."""
    words = line.split(" ")
    asked = {"_LORA_COMPLETE": "bash_complete", "COMP_WORDS": line, "COMP_CWORD": str(len(words) - 1)}
    command = [sys.executable, "-P", "-c", "from lorafile.cli.main import main; main(prog_name='lora')"]
    done = subprocess.run(command, env=os.environ | asked, cwd=cwd, capture_output=True, text=True, check=True)
    assert done.stderr == ""
    return [each.partition(",")[2] for each in done.stdout.split()]


def test_names_are_completed_from_the_spec(spec_file: Path) -> None:
    here = spec_file.parent
    sweep = '[[sweep]]\nname = "rank"\nlora.r = [2, 4]\n'
    (here / "other.toml").write_text(spec_file.read_text(encoding="utf-8") + sweep, encoding="utf-8")
    assert completed("lora plan other.toml --target rank/", here) == ["rank/r=2", "rank/r=4"]
    assert completed("lora export --spec other.toml rank/r=2/", here)[0].startswith("rank/r=2/seed=")
    assert completed("lora show rank/", here) == [], "study.toml has no sweep"
    assert completed("lora init --preset q", here) == ["quantization_sweep"]
    (here / "study.toml").write_text("[study\n", encoding="utf-8")
    assert completed("lora show rank/", here) == [], "what is wrong with a spec is for commands to say"


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_completion_script_is_read_by_its_shell(shell: str, tmp_path: Path) -> None:
    script = CliRunner().invoke(main, ["completion", shell])
    assert script.exit_code == 0
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    file = tmp_path / f"lora.{shell}"
    file.write_text(script.stdout, encoding="utf-8")
    checked = subprocess.run([shell, "-n", str(file)], capture_output=True, text=True)
    assert (checked.returncode, checked.stderr) == (0, "")


def test_an_extra_is_installed_from_where_lorafile_came(monkeypatch: pytest.MonkeyPatch) -> None:
    import importlib.metadata
    import json

    from lorafile.errors import install_command

    class Installed:
        def __init__(self, direct: object) -> None:
            self.direct = direct

        def read_text(self, name: str) -> str | None:
            assert name == "direct_url.json"
            return None if self.direct is None else json.dumps(self.direct)

    def typed(direct: object) -> str:
        monkeypatch.setattr(importlib.metadata, "distribution", lambda _: Installed(direct))
        return install_command("ray")

    assert typed(None) == "pip install 'lorafile[ray]'"
    assert typed({"url": "file:///home/me/my%20code", "dir_info": {}}) == "pip install '/home/me/my code[ray]'"
    assert typed({"url": "file:///src", "dir_info": {"editable": True}}) == "pip install -e '/src[ray]'"
    assert typed({"url": "file:///tmp/lorafile.whl", "archive_info": {}}) == "pip install 'lorafile[ray]'"
