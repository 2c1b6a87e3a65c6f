"""A part of a study: targets, what is left out, and what is done again although it is finished."""

from pathlib import Path

import pytest

pytest.importorskip("torch")

from lorafile import Study
from lorafile.errors import LoraError
from lorafile.plan.plan import Action, Plan
from lorafile.state import State

RANKS = '[[sweep]]\nname = "rank"\nlora.r = [2, 4]\n'


def study(spec_file: Path, more: str = "") -> Study:
    with spec_file.open("a", encoding="utf-8") as stream:
        stream.write(more)
    return Study.load(spec_file, spec_file.parent / ".lora")


def work(plan: Plan) -> set[str]:
    return {change.address for change in plan.work}


def test_a_target_brings_what_it_reads_and_nothing_else(spec_file: Path) -> None:
    plan = study(spec_file, RANKS).plan(target=["rank/r=4/seed=2:score/test"])
    assert work(plan) == {
        "data/train:prepare",
        "data/test:prepare",
        "rank/r=4/seed=2:train",
        "rank/r=4/seed=2:predict/test/likelihood",
        "rank/r=4/seed=2:score/test",
    }
    assert plan.left_out == len(study(spec_file).plan().work) - 5


def test_a_configurations_name_is_a_target_and_so_is_its_alias(spec_file: Path) -> None:
    again = RANKS + '[[sweep]]\nname = "scale"\nlora.r = [4]\n'
    loaded = study(spec_file, again)
    assert work(loaded.plan(target=["scale/r=4"])) == work(loaded.plan(target=["rank/r=4"]))
    assert all("r=2" not in address for address in work(loaded.plan(target=["rank/r=4"])))


def test_what_is_excluded_takes_what_reads_it_with_it(spec_file: Path) -> None:
    left = work(study(spec_file, RANKS).plan(exclude=["rank/r=2/seed=1:train", "data/test:prepare"]))
    assert "rank/r=2/seed=1:predict/validation/likelihood" not in left
    assert "rank/r=2/seed=1:score/validation" not in left
    assert "rank/r=2/seed=2:score/validation" in left
    assert not any("test" in address for address in left)


def test_a_pattern_that_fits_nothing_is_refused_with_what_comes_near(spec_file: Path) -> None:
    with pytest.raises(LoraError, match=r"nothing in this study matches 'rank/r=3'. Did you mean 'rank/r=.'"):
        study(spec_file, RANKS).plan(target=["rank/r=3"])


def test_a_part_of_a_study_then_the_rest_then_one_node_again(spec_file: Path) -> None:
    loaded = study(spec_file, RANKS)
    loaded.apply(loaded.plan(target=["rank/r=2"]))
    assert any("This study is partial: 2 of 4 runs" in one for one in loaded.gather().warnings)
    rest = loaded.plan()
    assert {change.configuration for change in rest.work} == {"rank/r=4"}
    assert loaded.plan(target=["rank/r=2"]).work == []
    loaded.apply(rest)

    again = loaded.plan(replace=["rank/r=2/seed=1:train"])
    assert [(c.address, c.action) for c in again.work] == [("rank/r=2/seed=1:train", Action.RETRY)]
    assert [attempt.address for attempt in loaded.apply(again).attempts] == ["rank/r=2/seed=1:train"]
    assert loaded.plan().work == [], "the same bytes came of it, so that nothing follows"


def test_what_was_computed_from_other_bytes_follows_in_the_same_apply(spec_file: Path) -> None:
    loaded = study(spec_file)
    loaded.apply()
    train = "lora/seed=1:train"
    with State.write(loaded.state) as state:  # as another machine would have left it
        plan = loaded.plan()
        change = next(change for change in plan.changes if change.address == train)
        attempt, node = plan.results[change.key], state.node(change.key)
        assert node is not None
        name = next(name for name in attempt.outputs if name.endswith(".safetensors"))
        other = plan.results[next(c.key for c in plan.changes if c.address == "lora/seed=2:train")].outputs[name]
        files = {each: state.objects.path(digest) for each, digest in attempt.outputs.items()}
        state.record(node, attempt, files | {name: state.objects.path(other)})
    loaded.apply()
    predicted = [f"lora/seed=1:predict/{split}/likelihood" for split in ("validation", "test")]
    scored = [f"lora/seed=1:score/{split}" for split in ("validation", "test")]
    plan = loaded.plan(replace=[train], exclude=["*:predict/test/*"])
    assert work(plan) == {train}, "whether its bytes will differ is not known before"
    done = loaded.apply(plan)
    assert [attempt.address for attempt in done.attempts] == [train, predicted[0], scored[0]]
    assert work(loaded.plan()) == {predicted[1]}
    assert {attempt.address for attempt in loaded.apply().attempts} == {predicted[1], scored[1]}
    assert loaded.plan().work == []


def test_what_was_done_elsewhere_is_done_again_where_that_is_asked_for(spec_file: Path) -> None:
    loaded = study(spec_file)
    loaded.apply()
    with State.write(loaded.state) as state:
        for key, attempts in state.latest().items():
            node = state.node(key)
            assert node is not None
            elsewhere = {**attempts[-1].environment, "device": "NVIDIA H100"}
            files = {name: state.objects.path(digest) for name, digest in attempts[-1].outputs.items()}
            state.record(node, attempts[-1]._replace(environment=elsewhere), files)
    drifted = [change for change in loaded.plan().changes if change.action is Action.DRIFT]
    assert {change.kind for change in drifted} == {"train", "predict"}
    assert loaded.plan().work == []
    again = loaded.plan(rerun_drifted=True)
    assert [change.key for change in again.work] == [change.key for change in drifted]
    loaded.apply(again)
    assert not any(change.action is Action.DRIFT for change in loaded.plan().changes)


def test_what_is_missing_or_cut_short_is_named_and_mended(spec_file: Path) -> None:
    loaded = study(spec_file)
    loaded.apply()
    plan = loaded.plan()
    assert plan.damaged == ()
    results = {change.address: plan.results[change.key] for change in plan.changes}
    objects = State.read(loaded.state).objects
    score = objects.path(next(iter(results["lora/seed=1:score/test"].outputs.values())))
    adapter = objects.path(results["lora/seed=2:train"].outputs["adapter_model.safetensors"])
    score.unlink()
    adapter.write_bytes(adapter.read_bytes()[:-1])
    plan = loaded.plan()
    assert plan.work == [], "nothing that is to run reads them"
    assert {(one.address, one.what) for one in plan.damaged} == {
        ("lora/seed=1:score/test", "missing"),
        ("lora/seed=2:train", "damaged"),
    }
    loaded.apply(loaded.plan(replace=[one.address for one in plan.damaged]))
    assert loaded.plan().damaged == ()
