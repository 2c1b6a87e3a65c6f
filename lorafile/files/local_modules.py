"""The modules next to a user's Python file that it imports, found by reading: their content belongs to the file's key.

They are looked for in the file's folder and in the spec's, wherever an import stands in the file or in what it imports.
What cannot be followed by reading is refused. When the file runs, nothing else of these folders can be imported.
"""

import ast
import hashlib
import json
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

from lorafile.errors import NodeError

_COMPILED = (".so", ".pyd", ".pyc")
_BY_NAME = ("import_module", "__import__")
_BY_FILE = ("spec_from_file_location", "SourceFileLoader", "run_path", "run_module", "addsitedir")


def local_modules(tree: ast.Module, file: Path, base: Path) -> dict[str, Path]:
    """Return the dotted name of each local module that a Python file imports, directly or not, and its file.

    A package is its `__init__.py`; one that has none is its folder.

    :param base: the folder of the spec
    :raises NodeError: when an import cannot be followed, or could mean an installed module as well
    """
    found: dict[str, Path] = {}
    waiting = [(tree, file, "")]
    while waiting:
        module, path, package = waiting.pop()
        for name, line in _imports(module, path, package):
            for part, place in _resolve(name, file, dict.fromkeys((file.parent, base))).items():
                if part in found:
                    continue
                _check_installed(part, place, f"{path}:{line}")
                found[part] = place
                if place.suffix == ".py":
                    inside = part if place.name == "__init__.py" else part.rpartition(".")[0]
                    waiting.append((parsed(place)[1], place, inside))
    return dict(sorted(found.items()))


def parsed(file: Path) -> tuple[bytes, ast.Module]:
    """Return a Python file's bytes, and what they say.

    :raises NodeError: when it cannot be read, or is no Python
    """
    try:
        content = file.read_bytes()
        return content, ast.parse(content)
    except OSError as error:
        raise NodeError(f"{file} cannot be read: {error.strerror}") from error
    except (SyntaxError, ValueError) as error:
        line = f":{error.lineno}" if isinstance(error, SyntaxError) and error.lineno else ""
        raise NodeError(f"{file}{line} is not Python: {getattr(error, 'msg', error)}") from error


def code_digest(content: bytes, modules: dict[str, Path]) -> str:
    """Return the digest of a user's file, and of the local modules that it imports, where it imports any."""
    own = hashlib.sha256(content).hexdigest()
    imported = [
        [name, hashlib.sha256(place.read_bytes()).hexdigest() if place.suffix == ".py" else ""]
        for name, place in modules.items()
    ]
    return hashlib.sha256(json.dumps([own, imported]).encode()).hexdigest() if imported else own


def defined_names(tree: ast.Module) -> dict[str, ast.expr | None]:
    """Return the names that a module defines at its top, each with its value where it is a constant's."""
    values: dict[str, ast.expr | None] = {}
    for statement in tree.body:
        if isinstance(statement, ast.FunctionDef):
            values[statement.name] = None
        elif isinstance(statement, ast.ImportFrom):
            values |= {alias.asname or alias.name: None for alias in statement.names}
        elif isinstance(statement, ast.Assign):
            values |= {target.id: statement.value for target in statement.targets if isinstance(target, ast.Name)}
        elif isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
            values[statement.target.id] = statement.value
    return values


def _imports(tree: ast.Module, file: Path, package: str) -> Iterator[tuple[str, int]]:
    """Yield (dotted name, line) of everything that a module imports; `a.*` is every module of the package a.

    :param package: the package that the module is in; empty at the top
    :raises NodeError: when one cannot be followed
    """
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            origin = _origin(node, file, package)
            hidden = next((a.name for a in node.names if a.name in _BY_FILE or (a.asname and a.name in _BY_NAME)), None)
            if hidden:
                raise _unfollowed(file, node.lineno, f"loads a module by {hidden}")
            yield from ((f"{origin}.{alias.name}", node.lineno) for alias in node.names)
        elif isinstance(node, ast.Call) and _name(node.func) in _BY_NAME:
            given = node.args[0] if len(node.args) == 1 else None
            if not isinstance(given, ast.Constant) or not isinstance(given.value, str) or given.value.startswith("."):
                raise _unfollowed(file, node.lineno, "imports a module by a name that is computed when it runs")
            yield given.value, node.lineno
        elif isinstance(node, ast.Name | ast.Attribute) and _name(node) in _BY_FILE:
            raise _unfollowed(file, node.lineno, f"loads a module by {_name(node)}")
        elif isinstance(node, ast.Attribute) and node.attr == "path" and _name(node.value) == "sys":
            raise _unfollowed(file, node.lineno, "uses sys.path, which decides where modules are found")


def _origin(node: ast.ImportFrom, file: Path, package: str) -> str:
    """Return the dotted name of the module that `from … import` reads."""
    if not node.level:
        origin = node.module or ""
        if origin == "sys" and any(alias.name == "path" for alias in node.names):
            raise _unfollowed(file, node.lineno, "uses sys.path, which decides where modules are found")
        return origin
    parts = package.split(".") if package else []
    if node.level > len(parts):
        dots = "." * node.level
        raise _unfollowed(file, node.lineno, f"imports from {dots}{node.module or ''}, but is not in a package")
    return ".".join([*parts[: len(parts) - node.level + 1], *([node.module] if node.module else [])])


def _name(node: ast.expr) -> str:
    return node.id if isinstance(node, ast.Name) else node.attr if isinstance(node, ast.Attribute) else ""


def _unfollowed(file: Path, line: int, what: str) -> NodeError:
    return NodeError(
        f"{file}:{line} {what}, so its code could change under the same key. Write `import name` or `from name "
        "import …` for a module next to the file."
    )


def _resolve(name: str, file: Path, folders: dict[Path, None]) -> dict[str, Path]:
    """Return the local modules that a dotted name stands for: the packages on the way, and as far as there are files.

    What has the name of a module of Python is that module; the file itself is none.
    """
    first, *rest = name.split(".")
    for folder in () if first in sys.stdlib_module_names else folders:
        found, place = _module(folder, first), folder
        chain: dict[str, Path] = {}
        dotted, names = first, rest
        while found is not None and found != file:
            chain[dotted] = found
            if found.suffix == ".py" and found.name != "__init__.py":
                break
            place = found.parent if found.name == "__init__.py" else found
            if not names:
                break
            if names[0] == "*":
                return chain | _whole(place, dotted)
            found, dotted, names = _module(place, names[0]), f"{dotted}.{names[0]}", names[1:]
        if any(path.suffix == ".py" for path in chain.values()):
            return chain
    return {}


def _whole(folder: Path, package: str) -> dict[str, Path]:
    names = {entry.stem if entry.is_file() else entry.name for entry in folder.iterdir()}
    found = {f"{package}.{name}": _module(folder, name) for name in sorted(names) if name.isidentifier()}
    return {name: place for name, place in found.items() if place is not None and place.suffix == ".py"}


def _module(folder: Path, name: str) -> Path | None:
    """Return the file of a module of that name in a folder, or the folder of a package without one.

    :raises NodeError: for a compiled module, whose content no key could tell from another build of it
    """
    for file in (folder / name / "__init__.py", folder / f"{name}.py"):
        if file.is_file():
            return file
    compiled = next((file for file in folder.glob(f"{name}.*") if file.suffix in _COMPILED), None)
    if compiled is not None:
        raise NodeError(f"{compiled} is compiled, but only Python files can be imported from next to a file.")
    return folder / name if (folder / name).is_dir() else None


def _check_installed(name: str, place: Path, where: str) -> None:
    """Refuse a name that could mean an installed module as well: which one it is would depend on the machine."""
    try:
        installed = None if "." in name else find_spec(name)
    except (ImportError, ValueError):
        return
    if installed is not None and installed.origin and Path(installed.origin).resolve() != place.resolve():
        raise NodeError(
            f"{where} imports {name}, which is {place.name} next to it as well as an installed module; rename the file."
        )
