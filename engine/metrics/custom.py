"""A user's own metric: a Python file that the spec names. It is read without being run, and runs in its own process.

The file defines `compute(rows) -> (figure, one number for each example)`, or `score(row) -> number` whose mean is the
figure; optionally `NEEDS` ("generation" unless it says "likelihood", "choice" or "regression"), `MORE_IS_BETTER` (True)
and `UNIT`. Rows are the stored predictions. Its digest is in the key of its own `score` node, with that of the modules
next to it that it imports (`files/local_modules.py`); nothing else next to it can be imported, because a change there
would change the figures under the same key.
"""

import ast
import json
import signal
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

from lorafile.engine.metrics.classification import Rows
from lorafile.engine.metrics.registry import Needs
from lorafile.errors import NodeError
from lorafile.files.local_modules import code_digest, defined_names, local_modules, parsed

_SETTINGS: dict[str, tuple[type, Any]] = {
    "NEEDS": (str, "generation"),
    "MORE_IS_BETTER": (bool, True),
    "UNIT": (str, ""),
}
_RUNNER = Path(__file__).with_name("runner.py")


@dataclass(frozen=True)
class CustomMetric:
    """What a metric file says of itself.

    :ivar written: the file's name as the spec has it; `label`: the metric's name in figures and reports
    :ivar digest: sha256 of the file, and of the modules that it imports from next to it
    :ivar modules: dotted name -> file of each of these; of a package without `__init__.py`, its folder
    """

    written: str
    label: str
    file: Path
    digest: str
    needs: Needs
    unit: str
    more_is_better: bool
    modules: dict[str, Path] = field(default_factory=dict)


def read_custom_metric(written: str, label: str, base: Path) -> CustomMetric:
    """Read a metric file without running it.

    :raises NodeError: when there is none, it is no Python, it defines nothing to run, or an import of its cannot be
        followed
    """
    file = (base / Path(written).expanduser()).resolve()
    content, tree = parsed(file)
    defined = defined_names(tree)
    if len({"compute", "score"} & defined.keys()) != 1:
        how = "both compute and score; keep one" if "compute" in defined else "neither compute(rows) nor score(row)"
        raise NodeError(f"{file} defines {how}")
    settings = {name: _setting(name, defined.get(name), file) for name in _SETTINGS}
    if settings["NEEDS"] not in get_args(Needs):
        raise NodeError(f"{file}: NEEDS should be one of {', '.join(get_args(Needs))}, not {settings['NEEDS']!r}")
    modules = local_modules(tree, file, base.resolve())
    about = (settings["NEEDS"], settings["UNIT"], settings["MORE_IS_BETTER"])
    return CustomMetric(written, label, file, code_digest(content, modules), *about, modules)


def _setting(name: str, value: ast.expr | None, file: Path) -> Any:
    kind, default = _SETTINGS[name]
    if value is None:
        return default
    if not isinstance(value, ast.Constant) or not isinstance(value.value, kind):
        wanted = "True or False" if kind is bool else "a text in quotes"
        raise NodeError(f"{file}:{value.lineno}: {name} should be {wanted}")
    return value.value


def run_custom_metric(metric: CustomMetric, rows: Rows, seconds: float) -> tuple[float, list[float]]:
    """Run a metric file on predictions, in a process of its own; return its figure and each example's.

    :raises NodeError: naming file, line and exception when it raises, takes too long, or gives something else
    """
    try:
        unchanged = code_digest(metric.file.read_bytes(), metric.modules) == metric.digest
    except OSError:
        unchanged = False
    if not unchanged:
        what = f"{metric.written}, or a module that it imports," if metric.modules else metric.written
        raise NodeError(f"evaluate.metrics: {what} changed after the plan was made. Run the same command again.")
    with tempfile.TemporaryDirectory(prefix="lorafile-metric-") as directory:
        rows_file, answer_file = Path(directory) / "rows.json", Path(directory) / "answer.json"
        rows_file.write_text(json.dumps(rows), encoding="utf-8")
        # -P: the directory in which lora runs is not on its path. A session of its own: Ctrl-C is for us.
        command = [sys.executable, "-P", str(_RUNNER), str(metric.file), str(rows_file), str(answer_file)]
        command.append(json.dumps({name: str(place) for name, place in metric.modules.items()}))
        try:
            done = subprocess.run(  # noqa: S603  (the user's own file, named in the user's own spec)
                command, stdin=subprocess.DEVNULL, capture_output=True, timeout=seconds, start_new_session=True
            )
        except subprocess.TimeoutExpired:
            raise NodeError(
                f"evaluate.metrics: {metric.written} took more than {seconds:g} s. Raise evaluate.metric_timeout."
            ) from None
        if not answer_file.is_file():
            code = done.returncode
            end = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"exited with code {code}"
            raise NodeError(f"evaluate.metrics: {metric.written} {end} before it returned a value.")
        answer = json.loads(answer_file.read_text(encoding="utf-8"))
    if "error" in answer:
        line = f", line {answer['line']}" if answer["line"] else ""
        raise NodeError(f"evaluate.metrics: {metric.written}{line}: {answer['error']}")
    return answer["figure"], answer["each"]
