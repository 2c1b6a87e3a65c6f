"""Where files lie: few entries and few files in a folder, and every package described and installed."""

import ast
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
CODE = ("lorafile", "engine", "specs", "state")
FOLDERS = sorted({file.parent.relative_to(ROOT) for name in CODE for file in (ROOT / name).rglob("*.py")})
SETUPTOOLS = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]


def test_the_package_has_few_entries() -> None:
    entries = {path.name for path in (ROOT / "lorafile").iterdir()} - {"__init__.py", "py.typed", "__pycache__"}
    assert len(entries) <= 15, sorted(entries)


@pytest.mark.parametrize("folder", FOLDERS, ids=str)
def test_a_folder_is_small_and_says_what_belongs_there(folder: Path) -> None:
    modules = list((ROOT / folder).glob("*.py"))
    assert len(modules) <= 22, f"{folder} has {len(modules)} modules; give some of them a package"
    assert ast.get_docstring(ast.parse((ROOT / folder / "__init__.py").read_text(encoding="utf-8")))


def test_every_package_is_installed() -> None:
    names = {".".join(folder.parts) for folder in FOLDERS}
    assert set(SETUPTOOLS["packages"]) == {
        name if name.startswith("lorafile") else f"lorafile.{name}" for name in names
    }
