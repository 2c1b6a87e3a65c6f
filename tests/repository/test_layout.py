"""Where files lie: few entries and few files in a folder, and every package described and installed."""

import ast
import re
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


def test_the_architecture_names_packages_and_files_that_are_there() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    rows = [line.split("|")[1:4] for line in text.splitlines() if line.startswith("| `") and "/`" in line.split("|")[1]]
    named = {folder for packages, *_ in rows for folder in re.findall(r"`([\w/]+)/`", packages)}
    packages = {str(folder) for folder in FOLDERS}
    assert named <= packages
    assert {name for name in packages - named if not name.startswith("lorafile/analysis/")} == {"lorafile"}
    for cell, purpose, files in rows:
        folders = re.findall(r"`([\w/]+)/`", cell)
        inside = [file.name for folder in folders for file in (ROOT / folder).rglob("*")]
        for name in re.findall(r"`([\w.]+)/?`", purpose + files):
            assert name in inside or name == "Study", f"docs/architecture.md: there is no {name} in {cell}"


def test_no_test_imports_from_a_conftest() -> None:
    """There are several: which one is found depends on what ran before."""
    importing = [
        file for file in (ROOT / "tests").rglob("*.py") if re.search("^ *from conftest ", file.read_text("utf-8"), re.M)
    ]
    assert importing == []
