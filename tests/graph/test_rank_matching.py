"""Placements with as many trainable parameters as the first one: the rank is solved, planned and reported."""

from pathlib import Path

import pytest

from lorafile import Study, specs
from lorafile.errors import SpecError
from lorafile.graph.build import build
from lorafile.graph.notices import notices
from lorafile.graph.parameter_count import adapter_parameters
from lorafile.lock.lockfile import identity, resolve
from lorafile.specs.tables.methods import METHODS

SWEEP = """
[[sweep]]
name = "placement"
match = "parameters"
lora.target_modules = ["all-linear", "attention", "mlp", ["q_proj"]]
"""


def counts(spec_file: Path, more: str) -> dict[str, tuple[int, float, int]]:
    """Return configuration -> (rank, alpha, trainable parameters)."""
    spec = specs.parse(spec_file.read_text() + more, spec_file)
    graph = build(spec, resolve(spec, None)[0])
    found = {}
    for c in spec.configurations:
        adapter = graph.sections[c.name]["adapter"]
        lock = graph.lock.models[identity(c.model)]
        found[c.name.partition("=")[2]] = (adapter["r"], adapter["lora_alpha"], adapter_parameters(adapter, lock))
    return found


def test_each_placement_gets_the_rank_that_comes_nearest(spec_file: Path) -> None:
    """Two layers of 64 → 64, 32, 32, 64 and 64 → 128, 128, 128 → 64: 416 and 576 parameters for each rank."""
    found = counts(spec_file, SWEEP + "[lora]\nr = 8\n")
    wanted = 8 * 2 * (2 * 128 + 2 * 96 + 3 * 192)
    assert found["all-linear"] == (8, 16, wanted)
    each = {"attention": 2 * 448, "mlp": 2 * 576, "q_proj": 2 * 128}
    for name, step in each.items():
        rank = min(range(1, 400), key=lambda r: abs(r * step - wanted))
        assert found[name] == (rank, 2 * rank, rank * step)


def test_methods_get_the_budget_of_the_first_lora_or_are_named(spec_file: Path) -> None:
    """Within 5 %, at ranks that PEFT takes; what cannot come so near, or has no rank, is in the plan's notices."""
    names = [name for name, method in METHODS.items() if not method.required]
    more = f'[[sweep]]\nname = "budget"\nmatch = "parameters"\nmethod = {names}\n[lora]\nr = 8\n'
    spec = specs.parse(spec_file.read_text() + more, spec_file)
    graph = build(spec, resolve(spec, None)[0])
    told = " ".join(notices(graph))
    near = []
    for c in spec.configurations:
        adapter = graph.sections[c.name]["adapter"]
        share = adapter_parameters(adapter, graph.lock.models[identity(c.model)]) / 16384
        near += [c.method] if abs(share - 1) <= 0.05 and METHODS[c.method].matches else []
        assert c.method == "lora" or c.method in near or c.name in told
    assert {"loha", "miss", "hra", "hira", "shira", "delora", "gralora", "deft", "glora"} <= set(near)
    alphas = {c.method: graph.sections[c.name]["adapter"] for c in spec.configurations}
    assert alphas["loha"]["alpha"] == alphas["loha"]["r"] == 4
    assert alphas["hra"]["r"] % 2 == alphas["gralora"]["r"] % 2 == 0


def test_the_nearest_rank_is_found_where_parameters_also_fall_with_it(spec_file: Path) -> None:
    """LoKr on the built-in model: PEFT's own count at every rank, of which the largest is not at the last."""
    torch, peft = pytest.importorskip("torch"), pytest.importorskip("peft")
    more = '[[sweep]]\nname = "budget"\nmatch = "parameters"\nmethod = ["lora", "lokr"]\n[lora]\nr = 8\n'
    text = f'[study]\nname = "match"\n[model]\npath = "builtin:facts-llama"\n[data]\npath = "builtin:facts"\n{more}'
    spec = specs.parse(text, spec_file)
    graph = build(spec, resolve(spec, None)[0])
    found = next(graph.sections[c.name]["adapter"] for c in spec.configurations if c.method == "lokr")
    modules = next(iter(graph.lock.models.values())).modules

    def count(rank: int) -> int:
        layers = {name.replace(".", "_"): torch.nn.Linear(into, out) for name, (out, into) in modules.items()}
        config = peft.LoKrConfig(r=rank, alpha=rank, target_modules=[*layers])
        model = peft.get_peft_model(torch.nn.ModuleDict(layers), config)
        return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)

    counts = {rank: count(rank) for rank in range(1, 43)}
    most = max(counts.values())  # far below what LoRA has
    assert counts[42] < most
    assert found["r"] == min(rank for rank in counts if counts[rank] == most)


def test_a_written_alpha_stays_and_dora_and_patterns_are_counted(spec_file: Path) -> None:
    more = "[lora]\nr = 4\nlora_alpha = 7\nuse_dora = true\nrank_pattern = { q_proj = 2 }\n"
    found = counts(spec_file, SWEEP.replace('"mlp", ', "").replace(', ["q_proj"]', "") + more)
    rank, alpha, parameters = found["attention"]
    assert alpha == 7
    wanted = found["all-linear"][2]
    others = [2 * (2 * 128 + r * (128 + 96 + 96) + 64 + 32 + 32 + 64) for r in (rank - 1, rank, rank + 1)]
    assert parameters == others[1]
    assert abs(others[1] - wanted) <= min(abs(others[0] - wanted), abs(others[2] - wanted))


def test_a_placement_is_one_configuration_only_if_its_rank_is_solved_alike(spec_file: Path) -> None:
    plain = '[[sweep]]\nname = "plain"\nlora.target_modules = ["all-linear", "attention"]\n'
    spec = specs.parse(spec_file.read_text() + SWEEP + plain, spec_file)
    names = [c.name for c in spec.configurations]
    assert "plain/target_modules=all-linear" not in names
    assert "plain/target_modules=attention" in names


@pytest.mark.parametrize(
    ("sweep", "message"),
    [
        ("lora.r = [4, 8]", "4:1: sweep[0].lora.r: cannot vary in a sweep with match"),
        ('configurations = [{ lora.r = 4, lora.target_modules = "mlp" }]', "cannot vary in a sweep with match"),
        ('method = ["none", "full"]', '"parameters" needs a LoRA configuration in this sweep'),
        ('method = ["lora"]\nmach = "rank"', 'cannot be swept; did you mean "match"?'),
    ],
)
def test_what_cannot_be_matched_is_refused(spec_file: Path, sweep: str, message: str) -> None:
    with pytest.raises(SpecError) as caught:
        specs.parse(spec_file.read_text() + f'\n[[sweep]]\nmatch = "parameters"\n{sweep}\n', spec_file)
    assert message.removeprefix("4:1: ") in str(caught.value)


def test_the_plan_and_the_report_show_the_solved_rank(
    spec_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("torch")
    from lorafile.analysis.overview.summary import configuration_rows
    from lorafile.cli.views.console import console
    from lorafile.cli.views.plan import show_plan
    from lorafile.results.gather import gather
    from lorafile.state import State

    spec_file.write_text(
        spec_file.read_text().replace("seeds = [1, 2]", "seeds = [1]")
        + SWEEP.replace(', "mlp", ["q_proj"]', "")
        + "[lora]\nr = 4\n"
    )
    study = Study.load(spec_file, tmp_path / "state")
    plan = study.plan()
    show_plan(plan, console())
    shown = capsys.readouterr().out
    assert "r=4 alpha=8" in shown
    assert "r=9 alpha=18" in shown
    assert "8,192" in shown
    assert "8,064" in shown
    study.apply(plan)
    rows = configuration_rows(gather(study.plan(), State.read(tmp_path / "state")))
    assert {row["rank"]: row["trainable_parameters"] for row in rows.values()} == {4: 8192, 9: 8064}
