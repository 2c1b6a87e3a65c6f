"""The review of an experiment: two specs, two plans, or a spec and its past in git."""

import json
import shutil
from pathlib import Path

import pytest

pytest.importorskip("torch")

from command_fixture import lora
from git_fixture import RANKS, commit, edit, git

from lorafile import Study
from lorafile.cli.views.diff import conclusion, lines
from lorafile.errors import LoraError, SpecError
from lorafile.plan.diff import Diff
from lorafile.study import diff_inputs

METRIC = "def score(row):\n    return float(len(row['answer']))\n"


@pytest.fixture
def repository(spec_file: Path) -> Path:
    """A git repository with a spec of two ranks and the untuned row, its lock, and one commit."""
    with spec_file.open("a", encoding="utf-8") as stream:
        stream.write(RANKS)
    Study.load(spec_file).lock()
    git(spec_file, "init", "-q", "-b", "main")
    commit(spec_file)
    return spec_file


def since(spec: Path, revision: str = "HEAD") -> Diff:
    return diff_inputs.since(revision, spec, spec.parent / ".lora")


def test_a_pull_request_that_adds_a_rank_and_renames_a_configuration(repository: Path) -> None:
    edit(repository, ("lora.r = [2, 4]", "lora.r = [2, 4, 128]"), ('name = "untuned"', 'name = "base"'))
    told = lora("diff", "--git", "HEAD", cwd=repository.parent)
    assert told.returncode == 0, told.stderr
    assert told.stdout.splitlines()[0] == "study.toml at HEAD → study.toml"
    assert "  + rank/r=128  2 train, 4 predict, 4 score, " in told.stdout
    assert "  > base/method=none  was untuned/method=none" in told.stdout
    assert "1 configuration added, 1 renamed.\nNothing is trained again.\nIt would run 10 nodes, " in told.stdout
    assert not (repository.parent / ".lora").exists()


def test_what_is_trained_anew_is_told_with_what_differs(repository: Path) -> None:
    edit(repository, ("max_steps = 3", "max_steps = 4"))
    found = since(repository)
    (item,) = found.retrained
    assert item.names == ("rank/r=2", "rank/r=4")
    assert item.why == ("max_steps 3 → 4",)
    assert conclusion(found)[0] == "2 configurations trained again."
    assert "Nothing is trained again." not in conclusion(found)
    assert not found.added and not found.removed and not found.renamed


def test_a_name_for_what_another_configuration_was_adds_no_work(repository: Path) -> None:
    """The rate changes for all, and one sweep names the old one: its runs are those that rank/r=2 had."""
    edit(
        repository,
        ("learning_rate = 1e-2", "learning_rate = 1e-3"),
        (
            '[[sweep]]\nname = "untuned"',
            '[[sweep]]\nname = "old"\nlora.r = [2]\ntrain.learning_rate = [1e-2]\n[[sweep]]\nname = "untuned"',
        ),
    )
    changes = since(repository)
    (item,) = changes.added
    assert item.names == ("old/r=2,learning_rate=0.01",)
    assert not item.kinds and not item.work
    told = lora("diff", "--git", "HEAD", cwd=repository.parent)
    assert told.returncode == 0, told.stderr
    assert "old/r=2,learning_rate=0.01  nothing new: already declared under another name" in told.stdout


def test_a_seed_more_is_no_new_configuration(repository: Path) -> None:
    edit(repository, ("seeds = [1, 2]", "seeds = [1, 2, 3]"))
    found = since(repository)
    assert conclusion(found)[:2] == ["No configuration changes.", "Nothing is trained again."]
    assert [(item.names, item.kinds["train"]) for item in found.more] == [(("rank/r=2", "rank/r=4"), 2)]
    assert found.without_run == ()
    assert "each 1 train, 2 predict, 2 score" in next(words for _, _, words in lines(found))


def test_many_configurations_are_a_line(repository: Path) -> None:
    edit(repository, ("lora.r = [2, 4]", f"lora.r = {list(range(2, 23))}"))
    (row,) = lines_of(since(repository))
    assert row[1] == "rank/r=3, rank/r=5, rank/r=6, rank/r=7 and 15 more"
    assert row[2].startswith("each 2 train, 4 predict, 4 score, ")


def test_what_is_declared_no_more_and_what_costs_nothing(repository: Path) -> None:
    edit(repository, ("lora.r = [2, 4]", "lora.r = [2]"), ('name = "tiny"', 'name = "tiny"\nquestion = "why?"'))
    found = since(repository)
    assert [item.names for item in found.removed] == [("rank/r=4",)]
    assert found.cost.work == 0
    assert found.without_run == ("study",)


def test_the_past_has_its_own_data_metrics_and_place(spec_file: Path, rows_file: Path) -> None:
    folder = spec_file.parent / "studies" / "one"
    folder.mkdir(parents=True)
    shutil.copy(rows_file, spec_file.parent / "rows.jsonl")
    (folder.parent / "length.py").write_text(METRIC, encoding="utf-8")
    spec = folder / "study.toml"
    text = spec_file.read_text(encoding="utf-8") + RANKS
    text = text.replace(str(rows_file), "../../rows.jsonl")
    spec.write_text(text.replace('["log_loss"]', '["log_loss", "../length.py"]'), encoding="utf-8")
    Study.load(spec).lock()
    git(spec_file, "init", "-q", "-b", "main")
    commit(spec_file)
    assert not lines_of(since(spec))

    (folder.parent / "length.py").write_text(METRIC.replace("len(", "2 * len("), encoding="utf-8")
    assert {kind for item in since(spec).more for kind in item.kinds} == {"score"}

    rows = spec_file.parent / "rows.jsonl"
    rows.write_text(rows.read_text(encoding="utf-8").replace("anna", "anne"), encoding="utf-8")
    found = since(spec)
    assert [item.names for item in found.retrained] == [("rank/r=2", "rank/r=4")]
    assert found.moved == ("The data ../../rows.jsonl have moved since the lock: other digests.",)


def lines_of(found: Diff) -> list[tuple[str, str, str]]:
    return list(lines(found))


def test_a_study_that_is_new_is_all_added(repository: Path) -> None:
    other = repository.with_name("other.toml")
    shutil.copy(repository, other)
    found = since(other)
    assert [item.names[0] for item in found.added] == ["untuned/method=none", "rank/r=2", "rank/r=4"]
    assert found.old == f"no {other} at HEAD"


def test_what_git_does_not_know_is_a_sentence(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    for revision in ("nowhere", "--output=x", "", "HEAD:study.toml"):
        with pytest.raises(LoraError, match="git has no revision"):
            since(repository, revision)
    apart = tmp_path_factory.mktemp("apart") / "study.toml"
    shutil.copy(repository, apart)
    with pytest.raises(LoraError, match="is not in a git repository"):
        since(apart)
    edit(repository, ("max_steps = 3", "max_step = 3"))
    commit(repository)
    edit(repository, ("max_step = 3", "max_steps = 3"))
    with pytest.raises(SpecError, match=r"study.toml at HEAD:\d+:\d+: train.max_step"):
        since(repository)


def test_two_saved_plans_and_two_specs_say_the_same(repository: Path) -> None:
    here, other = repository.parent, repository.with_name("other.toml")
    shutil.copy(repository, other)
    edit(other, ("lora.r = [2, 4]", "lora.r = [4, 8]"), ('name = "rank"', 'name = "size"'))
    for spec in (repository, other):
        study = Study.load(spec, here / ".lora")
        study.save_plan(study.plan(), spec.with_suffix(".json"))
    specs = diff_inputs.between(repository, other, here / ".lora")
    plans = diff_inputs.between(repository.with_suffix(".json"), other.with_suffix(".json"))
    assert specs.renamed == plans.renamed == (("rank/r=4", "size/r=4"),)
    for found in (specs, plans):
        assert [item.names for item in found.added] == [("size/r=8",)]
        assert [item.names for item in found.removed] == [("rank/r=2",)]
    assert specs.cost == plans.cost
    specs = diff_inputs.between(repository, other, here / ".lora", 3600.0)
    plans = diff_inputs.between(repository.with_suffix(".json"), other.with_suffix(".json"), hourly=3600.0)
    assert plans.price == pytest.approx(specs.price, rel=0.2), "of a part of a plan, as the whole of it costs"


def test_the_diff_as_json_and_markdown(repository: Path) -> None:
    edit(repository, ("lora.r = [2, 4]", "lora.r = [2, 8]"), ('name = "rank"', 'name = "a|b <i>"'))
    told = json.loads(lora("diff", "--git", "HEAD", "--json", cwd=repository.parent).stdout)
    assert told["format_version"] == "1.0"
    assert told["renamed"] == [["rank/r=2", "a|b <i>/r=2"]]
    assert told["cost"]["work"] == 10
    assert told["price"] is None
    priced = json.loads(lora("diff", "--git", "HEAD", "--json", "--price", "3600/h", cwd=repository.parent).stdout)
    assert 0 < priced["price"] <= priced["cost"]["seconds"], "one a second, on the clock"
    page = lora("diff", "--git", "HEAD", "--markdown", cwd=repository.parent).stdout
    assert r"| `+` | a\|b &lt;i&gt;/r=8 |" in page
    assert page.count("\n| `") == 3
