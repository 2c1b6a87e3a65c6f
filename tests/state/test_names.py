"""One name, one run: several studies on one state, and what every command makes of a name that they share."""

import json
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from spec_fixture import BASIC

pytest.importorskip("torch")

from lorafile import Study
from lorafile.cli.main import main
from lorafile.errors import LoraError
from lorafile.plan.plan import Action

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")  # peft itself, used here

SWEEP = '[[sweep]]\nname = "rank"\nlora.r = [4]\n'
BREVITY = 'UNIT = "characters"\n\n\ndef score(row):\n    return len(row["answer"])\n'
RUN = "rank/r=4/seed=1"
ASKED = f'"{RUN}" is a run of two studies: alpha (key '
REMEDY = "Pass the spec with --spec, or pass the key."


def write(folder: Path, name: str, text: str, *changes: tuple[str, str]) -> Path:
    """Write a study of a name, `alpha` with some changes."""
    for old, new in (('name = "tiny"', f'name = "{name}"'), *changes):
        assert old in text
        text = text.replace(old, new)
    file = folder / f"{name}.toml"
    file.write_text(text, encoding="utf-8")
    return file


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path, rows_file: Path) -> Path:
    """A folder of two studies on one state, equal but for the learning rate: both train, and answer differently."""
    folder = tmp_path_factory.mktemp("two")
    text = BASIC.format(model=tiny_model, data=rows_file).replace("max_steps = 3", "max_steps = 20") + SWEEP
    (folder / "text").write_text(text, encoding="utf-8")
    for file in (
        write(folder, "alpha", text),
        write(folder, "beta", text, ("1e-2", "5e-2"), ("seeds = [1, 2]", "seeds = [1]")),
    ):
        assert {attempt.outcome for attempt in study(file).apply().attempts} == {"done"}
    return folder


@pytest.fixture
def here(trained: Path, tmp_path: Path) -> Path:
    """A copy of that folder that a test may change."""
    return Path(shutil.copytree(trained, tmp_path / "here"))


def study(file: Path) -> Study:
    return Study.load(file, file.parent / ".lora")


def lora(folder: Path, *words: str) -> Result:
    return CliRunner().invoke(main, [*words, "--state", str(folder / ".lora")])


def shown(folder: Path, *words: str) -> dict[str, object]:
    """Return what a command prints as JSON."""
    result = lora(folder, *words, "--json")
    assert result.exit_code == 0, result.output
    content: dict[str, object] = json.loads(result.stdout)
    return content


def key_of(file: Path, address: str = f"{RUN}:train") -> str:
    return next(node.key for node in study(file).plan().graph.nodes.values() if node.address == address)


def own_scores(file: Path, seed: int = 1) -> dict[str, float]:
    """Return a run's scores as the study itself gathers them."""
    runs = study(file).gather().runs
    (row,) = runs[(runs["configuration"] == "rank/r=4") & (runs["seed"] == seed)].to_dict("records")
    return {name: row[name] for name in ("validation.log_loss", "test.log_loss")}


@pytest.mark.parametrize("name", ["alpha", "beta"])
def test_a_run_is_that_of_the_spec_or_of_the_key_with_its_own_scores_and_predictions(trained: Path, name: str) -> None:
    file = trained / f"{name}.toml"
    by_spec = shown(trained, "show", RUN, "--spec", str(file), "--predictions", "2")
    by_key = shown(trained, "show", key_of(file)[:12], "--predictions", "2")
    assert by_spec["key"] == by_key["key"] == key_of(file)
    assert by_spec["studies"] == by_key["studies"] == [name]
    assert by_spec["scores"] == by_key["scores"] == own_scores(file)
    assert by_spec["curve"] == by_key["curve"]
    first = study(file).gather().samples["rank/r=4", 1].rows[0]
    assert by_spec["predictions"] == by_key["predictions"]
    assert by_spec["predictions"][0]["log_likelihood"] == first["log_likelihood"]  # type: ignore[index]


def test_the_two_studies_differ(trained: Path) -> None:
    assert own_scores(trained / "alpha.toml") != own_scores(trained / "beta.toml"), "the other tests show nothing else"


@pytest.mark.parametrize(
    "words", [("show", RUN), ("show", RUN, "--json"), ("state", "show", RUN), ("state", "rm", RUN)]
)
def test_a_run_of_two_studies_is_asked_about(trained: Path, words: tuple[str, ...]) -> None:
    result = lora(trained, *words)
    assert result.exit_code == 1
    alpha, beta = (key_of(trained / f"{name}.toml")[:12] for name in ("alpha", "beta"))
    assert f"{ASKED}{alpha}…) and beta (key {beta}…). {REMEDY}" in result.output


def test_a_node_and_a_configuration_of_two_studies_are_asked_about(trained: Path) -> None:
    node = lora(trained, "show", f"{RUN}:score/test").output
    assert f'"{RUN}:score/test" is a node of two studies: alpha (key ' in node
    for words in (("show",), ("state", "rm"), ("state", "export", "--bundle", str(trained / "no.tar"))):
        asked = lora(trained, *words, "rank/r=4").output
        assert '"rank/r=4" is a configuration of two studies: alpha and beta. Pass the spec with --spec.' in asked
    assert '"rank" is part of two studies: alpha and beta.' in lora(trained, "state", "rm", "rank").output
    assert not (trained / "no.tar").exists()


def test_what_only_one_study_has_and_what_is_one_node_in_both_needs_no_answer(trained: Path) -> None:
    assert shown(trained, "show", "rank/r=4/seed=2")["scores"] == own_scores(trained / "alpha.toml", 2)
    data = shown(trained, "show", "data/test:prepare")
    assert data["studies"] == ["alpha", "beta"]
    assert shown(trained, "state", "show", "data/test:prepare")["key"] == data["key"]


def test_a_name_that_is_not_of_the_spec_is_refused(trained: Path) -> None:
    beta = str(trained / "beta.toml")
    result = lora(trained, "show", "rank/r=4/seed=2", "--spec", beta)
    assert result.exit_code == 1
    assert f'{beta} declares nothing named "rank/r=4/seed=2", and none of its keys starts with it' in result.output
    assert "it belongs to alpha." in result.output
    other = lora(trained, "state", "show", key_of(trained / "alpha.toml")[:12], "--spec", beta)
    assert "it belongs to alpha." in other.output


def test_a_run_that_is_declared_and_not_trained_has_no_scores_of_a_namesake(here: Path) -> None:
    text = (here / "text").read_text(encoding="utf-8")
    file = write(here, "aardvark", text, ("1e-2", "2e-2"))
    unseen = shown(here, "show", RUN, "--spec", str(file), "--predictions", "1")
    assert (unseen["key"], unseen["standing"], unseen["studies"]) == (key_of(file), "not run yet", ["aardvark"])
    assert (unseen["scores"], unseen["predictions"], unseen["curve"]) == ({}, [], [])
    study(file).apply(study(file).plan(target=["rank/r=4/seed=2:*"]))
    assert "is a run of 3 studies: aardvark (key " in lora(here, "show", RUN).output
    by_key = shown(here, "show", key_of(file)[:12], "--predictions", "1")
    assert (by_key["standing"], by_key["scores"], by_key["predictions"]) == ("not run yet", {}, [])
    (first, second) = shown(here, "show", "rank/r=4", "--spec", str(file))["runs"]  # type: ignore[misc]
    assert (first["outcome"], first["figures"], second["outcome"]) == ("missing", {}, "done")


def test_what_is_declared_now_goes_before_what_was_tried_under_the_name(here: Path) -> None:
    alpha, old, before = here / "alpha.toml", key_of(here / "beta.toml"), own_scores(here / "beta.toml")
    text = (here / "text").read_text(encoding="utf-8")
    study(write(here, "beta", text, ("lora.r = [4]", "lora.r = [2]"))).apply()
    assert shown(here, "show", RUN)["key"] == key_of(alpha)
    assert shown(here, "state", "show", RUN)["key"] == key_of(alpha)
    earlier = shown(here, "show", old[:12])
    assert (earlier["scores"], earlier["studies"]) == (before, [])
    listed = lora(here, "state", "rm", RUN).output
    assert "beta" not in listed
    write(here, "alpha", text, ("1e-2", "3e-2"))
    study(alpha).apply()
    assert shown(here, "show", RUN)["scores"] == own_scores(alpha)


def test_a_run_that_studies_share_is_one_run(here: Path) -> None:
    """Scores of both are shown; where they contradict each other, it is asked whose are meant."""
    text = (here / "text").read_text(encoding="utf-8")
    (here / "brevity.py").write_text(BREVITY, encoding="utf-8")
    metrics = 'metrics = ["log_loss", "brevity.py"]'
    gamma = write(here, "gamma", text, ('metrics = ["log_loss"]', metrics))
    study(gamma).apply()
    assert key_of(gamma) == key_of(here / "alpha.toml")
    both = shown(here, "show", key_of(gamma)[:12])
    assert both["studies"] == ["alpha", "gamma"]
    assert both["scores"].items() >= own_scores(gamma).items()  # type: ignore[attr-defined]
    assert "test.brevity" in both["scores"]  # type: ignore[operator]
    shorter = ("max_new_tokens = 3", "max_new_tokens = 1")
    delta = write(here, "delta", text, ('metrics = ["log_loss"]', metrics), shorter)
    study(delta).apply()
    asked = lora(here, "show", key_of(gamma)[:12]).output
    assert f'delta and gamma share the run "{RUN}" and evaluate it differently. Pass the spec with --spec.' in asked
    lengths = [shown(here, "show", RUN, "--spec", str(file))["scores"] for file in (gamma, delta)]
    assert lengths[0]["test.brevity"] > lengths[1]["test.brevity"]  # type: ignore[index]


def test_nothing_is_forgotten_until_the_study_is_named(here: Path) -> None:
    alpha, beta = here / "alpha.toml", here / "beta.toml"
    for name in (RUN, "rank/r=4", f"{RUN}:train"):
        assert lora(here, "state", "rm", name, "--yes").exit_code == 1
    assert forgotten(here) == set()
    assert lora(here, "state", "rm", "rank/r=4", "--spec", str(beta), "--yes").exit_code == 0
    actions = {change.address: change.action for change in study(beta).plan().changes}
    assert {action for name, action in actions.items() if name.startswith("rank/")} == {Action.RETRY}
    assert study(alpha).plan().work == []
    assert lora(here, "state", "rm", f"{RUN}:*", "--yes").exit_code == 0
    assert {key_of(alpha), key_of(beta)} <= forgotten(here), "a pattern takes what fits in every study"
    assert key_of(alpha, "rank/r=4/seed=2:train") not in forgotten(here)


def forgotten(folder: Path) -> set[str]:
    with closing(sqlite3.connect(folder / ".lora" / "state.db")) as index:
        rows = index.execute("SELECT a.key FROM removals r JOIN attempts a ON a.id = r.attempt").fetchall()
    return {key for (key,) in rows}


def test_a_bundle_holds_the_study_that_is_named(here: Path) -> None:
    bundle, beta = here / "beta.tar", here / "beta.toml"
    made = lora(here, "state", "export", RUN, "--bundle", str(bundle), "--spec", str(beta))
    assert made.exit_code == 0, made.output
    assert CliRunner().invoke(main, ["state", "import", str(bundle), "--state", str(here / "new")]).exit_code == 0
    with closing(sqlite3.connect(here / "new" / "state.db")) as index:
        keys = {key for (key,) in index.execute("SELECT key FROM attempts WHERE kind = 'train'")}
    assert keys == {key_of(beta)}


def test_an_accepted_result_is_told_by_its_key_where_its_name_is_not_enough(here: Path) -> None:
    alpha, beta = here / "alpha.toml", here / "beta.toml"
    words = ("state", "accept", RUN, RUN, "--spec", str(alpha), "--reason", "equal")
    assert (
        f"{ASKED}{key_of(alpha)[:12]}…) and beta (key {key_of(beta)[:12]}…). Pass the key." in lora(here, *words).output
    )
    accepted = lora(here, "state", "accept", key_of(beta)[:12], *words[3:])
    assert accepted.exit_code == 0, accepted.output
    assert shown(here, "show", RUN, "--spec", str(alpha))["key"] == key_of(beta)


def test_chat_and_export_take_the_run_of_their_spec_by_name_and_by_key(trained: Path, tmp_path: Path) -> None:
    weights = {}
    for name in ("alpha", "beta"):
        file, key = trained / f"{name}.toml", key_of(trained / f"{name}.toml")
        for number, words in enumerate((RUN, "rank/r=4", f"{RUN}:score/test", key[:12])):
            out = tmp_path / f"{name}{number}"
            made = lora(
                trained, "export", words, str(out), "--spec", str(file), *(("--seed", "1") if number == 1 else ())
            )
            assert made.exit_code == 0, made.output
            weights[name, number] = (out / "adapter_model.safetensors").read_bytes()
            assert key in (out / "README.md").read_text(encoding="utf-8")
    assert len(set(weights.values())) == 2
    other = key_of(trained / "beta.toml")[:12]
    refused = lora(trained, "export", other, str(tmp_path / "no"), "--spec", str(trained / "alpha.toml"))
    assert (refused.exit_code, "it belongs to beta." in refused.output) == (1, True)
    with pytest.raises(LoraError, match=r"it belongs to beta\."):
        study(trained / "alpha.toml").ask(other, "where ?")
    question, said = "where does anna number 7 live ?", {}
    for name in ("alpha", "beta"):
        asked = study(trained / f"{name}.toml")
        said[name] = asked.ask(RUN, question)
        assert asked.ask(key_of(asked.spec.file)[:12], question) == said[name]
    assert said["alpha"]["base"] == said["beta"]["base"]
