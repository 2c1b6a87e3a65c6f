"""What several tests need: two-layer models, small data, and specs about them."""

import json
import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from sample_fixture import drawn, shuffled
from spec_fixture import BASIC

if TYPE_CHECKING:
    from engine_fixture import Engine

if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # the workers share the cores: threads of their own get in the way

DURATIONS = Path(__file__).with_name("durations.json")
SLOW_SECONDS = 2.0
SHARED = Path(__file__).resolve().parents[2] / "shared"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--full", action="store_true", help="Faults and bad input: all of them, not a sample.")
    parser.addoption("--budget", type=float, help="Seconds for the slow tests of durations.json: as many as fit in.")
    parser.addoption("--write-durations", action="store_true", help="Write durations.json: the tests that are slow.")
    parser.addoption("--write-coverage", action="store_true", help="Write the rows of docs/coverage.md that are run.")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Keep of a test that is marked `sampled(n)` the rows that the commit draws, unless all are asked for."""
    if config.getoption("--full"):
        return
    tables: dict[str, list[pytest.Item]] = {}
    for item in items:
        if item.get_closest_marker("sampled"):
            tables.setdefault(item.nodeid.partition("[")[0], []).append(item)
    left: set[pytest.Item] = set()
    for name, rows in tables.items():
        marker = rows[0].get_closest_marker("sampled")
        assert marker is not None
        left |= set(rows) - set(drawn(rows, marker.args[0], name))
    left |= _over_budget([item for item in items if item not in left], config.getoption("--budget"))
    config.hook.pytest_deselected(items=[item for item in items if item in left])
    items[:] = [item for item in items if item not in left]


def _over_budget(items: list[pytest.Item], budget: float | None) -> set[pytest.Item]:
    """Return the slow tests that the commit does not draw; the next commits draw others."""
    if budget is None:
        return set()
    durations: dict[str, float] = json.loads(DURATIONS.read_text(encoding="utf-8"))
    slow = [item for item in items if _function(item.nodeid) in durations]
    left = set()
    for item in shuffled(slow, "slow tests"):
        seconds = durations[_function(item.nodeid)]
        if seconds > budget:
            left.add(item)  # a shorter one may fit in
        else:
            budget -= seconds
    return left


def _function(nodeid: str) -> str:
    return nodeid.partition("[")[0]


def _write_durations(terminalreporter: pytest.TerminalReporter) -> None:
    seconds: Counter[str] = Counter()
    rows: dict[str, set[str]] = {}
    for kind in ("", "passed", "failed"):  # set-up and teardown, then calls
        for report in terminalreporter.getreports(kind):
            seconds[_function(report.nodeid)] += report.duration
            rows.setdefault(_function(report.nodeid), set()).add(report.nodeid)
    each = {name: round(lasted / len(rows[name]), 1) for name, lasted in sorted(seconds.items())}
    slow = {name: lasted for name, lasted in each.items() if lasted >= SLOW_SECONDS}
    DURATIONS.write_text(json.dumps(slow, indent=0) + "\n", encoding="utf-8")


@pytest.fixture(autouse=True)
def as_if_large(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Let tests of graphs and plans go the way of large studies: kept graphs, and files looked at elsewhere."""
    if request.path.parent.name in ("graph", "plan"):
        monkeypatch.setattr("lorafile.graph.build._MANY", 0)
        monkeypatch.setattr("lorafile.plan.planner._MANY", 0)
        monkeypatch.setattr("lorafile.files.memo._LONG", -1)
        monkeypatch.setattr(
            "lorafile.files.memo.cache_directory", lambda kind: tmp_path_factory.getbasetemp() / "kept" / kind
        )


@pytest.fixture
def full(request: pytest.FixtureRequest) -> bool:
    """Whether everything is asked for, and not a sample."""
    return bool(request.config.getoption("--full"))


@pytest.fixture
def counts(request: pytest.FixtureRequest) -> Callable[..., None]:
    """Record how often what was tried: `counts("plan files", tried=600, refused=412)`; equal names are summed up."""

    def record(kind: str, **numbers: int) -> None:
        request.node.user_properties.append(("counts", [kind, numbers]))

    return record


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print one line for each kind of which something was counted, of all worker processes together."""
    if terminalreporter.config.getoption("--write-durations"):
        _write_durations(terminalreporter)
    sums: dict[str, Counter[str]] = {}
    for report in terminalreporter.getreports("") + terminalreporter.getreports("error"):
        for name, value in getattr(report, "user_properties", []) if report.when == "teardown" else []:
            if name == "counts":
                sums.setdefault(value[0], Counter()).update(value[1])
    if sums:
        terminalreporter.section("counts")
    for kind, numbers in sorted(sums.items()):
        terminalreporter.line(
            f"{kind}: " + ", ".join(f"{number:,} {what.replace('_', ' ')}" for what, number in numbers.items())
        )


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random Llama of two layers, with the built-in tokenizer but for its chat template."""
    torch = pytest.importorskip("torch")
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    from lorafile.engine.data.sources import find_model

    where = tmp_path_factory.mktemp("models") / "tiny"
    tokenizer = AutoTokenizer.from_pretrained(find_model("builtin:facts-llama", None, Path()))
    tokenizer.chat_template = None
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=128,
        pad_token_id=3,
        bos_token_id=1,
        eos_token_id=2,
    )
    LlamaForCausalLM(config).save_pretrained(where)
    tokenizer.save_pretrained(where)
    return where


@pytest.fixture(scope="session")
def rows_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Forty questions with answers of different lengths."""
    file = tmp_path_factory.mktemp("data") / "rows.jsonl"
    words = ["paris", "london", "rome", "oslo", "lima", "cairo"]
    rows = [
        {"prompt": f"where does anna number {n} live ?", "completion": " " + " ".join(words[: 1 + n % 4])}
        for n in range(40)
    ]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return file


@pytest.fixture
def spec_file(tmp_path: Path, tiny_model: Path, rows_file: Path) -> Path:
    """A study of one configuration on the two-layer model; tests append sweeps to it."""
    file = tmp_path / "study.toml"
    file.write_text(BASIC.format(model=tiny_model, data=rows_file), encoding="utf-8")
    return file


@pytest.fixture
def engine(tiny_model: Path, rows_file: Path, tmp_path: Path) -> "Engine":
    """The engine on the two-layer model and the forty questions."""
    from engine_fixture import Engine

    return Engine(tiny_model, rows_file, tmp_path)


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real models and data next to the checkout."""
    if not (SHARED / "models").is_dir():
        pytest.skip(f"no real input: {SHARED} is absent")
    return SHARED
