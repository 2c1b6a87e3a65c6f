"""Plans as files: what was approved is what is done, or nothing is."""

import json
import random
import shutil
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

pytest.importorskip("torch")

from command_fixture import lora

from lorafile import Study
from lorafile.errors import LoraError, StalePlan
from lorafile.plan.document import PlanDocument, json_schema, text
from lorafile.plan.plan import WORK
from lorafile.plan.planfile import read
from lorafile.state import State

ROOT = Path(__file__).resolve().parents[2]
RANKS = '[[sweep]]\nname = "rank"\nlora.r = [2, 4]\n'


def load(spec_file: Path, more: str = "") -> Study:
    with spec_file.open("a", encoding="utf-8") as stream:
        stream.write(more)
    return Study.load(spec_file, spec_file.parent / ".lora")


def test_the_schema_in_docs_is_that_of_the_code() -> None:
    assert json.loads((ROOT / "docs" / "plan.schema.json").read_text(encoding="utf-8")) == json_schema()


def test_real_output_is_of_the_schema(spec_file: Path) -> None:
    tuned = '[[sweep]]\nname = "rate"\nlora.r = [2]\ntrain.learning_rate = { tune = [1e-3, 1e-2] }\n'
    load(spec_file, RANKS + tuned)
    validator = Draft202012Validator(json_schema())
    for options in ([], ["--gpu", "1MB"], ["--target", "rate/*", "--exclude", "*seed=2*"]):
        told = lora("plan", "--json", *options, cwd=spec_file.parent)
        plan = json.loads(told.stdout)
        assert list(validator.iter_errors(plan)) == []
        assert plan["tuning"]
        assert sum(plan["summary"].values()) == len(plan["changes"])


def test_a_plan_as_markdown_is_a_table_that_names_cannot_break(spec_file: Path) -> None:
    load(spec_file, RANKS.replace('"rank"', '"a|b <i> @team"'))
    page = lora("plan", "--markdown", "--gpu", "1MB", cwd=spec_file.parent).stdout
    assert "**23 to run.** Forecast: " in page
    rows = [line for line in page.splitlines() if line.startswith("| `+` | a\\|b &lt;i&gt; &#64;team/r=2 |")]
    assert len(rows) == 1
    assert "| 2 train, 4 predict, 4 score |" in rows[0]
    assert rows[0].endswith("| **no** |")
    assert page.count("\n| `+` |") == 3 + 23, "a row for the data and each configuration, and below each node"
    assert page.index("<details>") < page.index("</details>")


def test_an_approved_plan_runs_exactly_its_nodes_and_once(spec_file: Path) -> None:
    load(spec_file, RANKS)
    here, file = spec_file.parent, spec_file.parent / "approved.json"
    assert lora("plan", "--target", "rank/r=2/seed=1:train", "--out", "approved.json", cwd=here).returncode == 0
    wanted = {change.key for change in read(file).work.values()}
    done = lora("apply", "approved.json", cwd=here)
    assert done.returncode == 0, done.stderr
    finished = {c.key for c in load(spec_file).plan().changes if c.action not in WORK}
    assert finished == wanted
    again = lora("apply", "approved.json", cwd=here)
    assert again.returncode == 5
    assert "finished by now: data/train:prepare and rank/r=2/seed=1:train" in again.stderr


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        (
            "max_steps = 3",
            "max_steps = 4",
            ["the spec study.toml was changed", "now with other settings: rank/r=2/seed=1"],
        ),
        ("seeds = [1, 2]", "seeds = [1, 2, 3]", ["new: rank/r=2/seed=3:train"]),
        (
            "lora.r = [2, 4]",
            "lora.r = [2]",
            ["no longer declared, or declared with other settings: rank/r=4/seed=1:train"],
        ),
        ("lora.r = [2, 4]", "lora.r = [2, 4.5]", ["its spec cannot be planned", "study.toml:"]),
    ],
)
def test_another_spec_is_refused_with_what_changed(spec_file: Path, old: str, new: str, words: list[str]) -> None:
    load(spec_file, RANKS)
    here = spec_file.parent
    lora("plan", "--out", "approved.json", cwd=here)
    spec_file.write_text(spec_file.read_text(encoding="utf-8").replace(old, new), encoding="utf-8")
    told = lora("apply", "approved.json", cwd=here)
    assert told.returncode == 5, told.stderr
    assert all(each in told.stderr for each in words), told.stderr
    assert not (here / ".lora").exists()


def test_other_data_are_refused_by_name(spec_file: Path, rows_file: Path) -> None:
    rows = spec_file.parent / "own.jsonl"
    shutil.copy(rows_file, rows)
    spec_file.write_text(spec_file.read_text(encoding="utf-8").replace(str(rows_file), "own.jsonl"), encoding="utf-8")
    study = load(spec_file)
    study.save_plan(study.plan(), spec_file.parent / "approved.json")
    rows.write_text(rows.read_text(encoding="utf-8").replace("anna", "anne"), encoding="utf-8")
    with pytest.raises(StalePlan, match=r"the lock has different content for the data own.jsonl"):
        Study.approved(spec_file.parent / "approved.json", spec_file.parent / ".lora")


def test_other_bytes_under_the_same_key_are_refused(spec_file: Path) -> None:
    loaded = load(spec_file)
    loaded.apply(loaded.plan(target=["data/*", "*:train"]))
    plan = loaded.plan(target=["lora/seed=1:score/test"])
    load(spec_file).save_plan(plan, spec_file.parent / "approved.json")
    Study.approved(spec_file.parent / "approved.json", loaded.state)
    one, other = (plan.results[key] for key in plan.results if plan.graph.nodes[key].kind == "train")
    with State.write(loaded.state) as state:
        node = state.node(one.key)
        assert node is not None
        state.record(node, one, {name: state.objects.path(digest) for name, digest in other.outputs.items()})
    with pytest.raises(StalePlan, match="lora/seed=1:train was recreated with different bytes"):
        Study.approved(spec_file.parent / "approved.json", loaded.state)


def test_what_is_done_again_is_done_again_once(spec_file: Path) -> None:
    loaded = load(spec_file)
    loaded.apply()
    loaded.save_plan(loaded.plan(replace=["lora/seed=1:train"]), spec_file.parent / "approved.json")
    study, plan = Study.approved(spec_file.parent / "approved.json", loaded.state)
    study.apply(plan)
    with pytest.raises(StalePlan, match="lora/seed=1:train has been rerun since"):
        Study.approved(spec_file.parent / "approved.json", loaded.state)


def test_comments_names_and_questions_change_no_approved_plan(spec_file: Path) -> None:
    study = load(spec_file, RANKS)
    study.save_plan(study.plan(), spec_file.parent / "approved.json")
    text = spec_file.read_text(encoding="utf-8").replace('name = "rank"', 'name = "size"  # renamed')
    spec_file.write_text(text.replace('name = "tiny"', 'name = "tiny"\nquestion = "why?"'), encoding="utf-8")
    _, plan = Study.approved(spec_file.parent / "approved.json", spec_file.parent / ".lora")
    assert {change.configuration for change in plan.work if change.kind == "train"} == {"size/r=2", "size/r=4"}


def test_nothing_but_a_plan_is_overwritten(spec_file: Path) -> None:
    with pytest.raises(LoraError, match="is not a plan"):
        study = load(spec_file)
        study.save_plan(study.plan(), spec_file)


def _broken(good: dict[str, Any]) -> dict[str, bytes]:
    change = good["changes"][0]
    return {
        "empty": b"{}",
        "half": text(good).encode()[: len(text(good)) // 2],
        "deep": b'{"changes": ' + b"[" * 100_000,
        "number": text(good).replace('"seed": 1', '"seed": ' + "9" * 5000).encode(),
        "bytes": b'{"\xff\xfe": 1}',
        "long": text(good | {"study": "x" * 10_000_000 + "\n"}).encode(),
        "infinite": text(good).replace('"seconds": 0.1', '"seconds": 1e999').encode(),
        "text for number": text(good).replace('"left_out": 0', '"left_out": "0"').encode(),
        "newer": text(good | {"format_version": "2.0"}).encode(),
        "more": text(good | {"command": "rm"}).encode(),
        "key": text(good | {"changes": [change | {"key": "../../etc/passwd"}]}).encode(),
        "escape": text(good | {"changes": [change | {"address": "\x1b[2J"}]}).encode(),
    }


def test_a_hostile_plan_file_gives_a_sentence(spec_file: Path) -> None:
    study = load(spec_file)
    study.save_plan(study.plan(), spec_file.parent / "good.json")
    good = json.loads((spec_file.parent / "good.json").read_text(encoding="utf-8"))
    assert read(spec_file.parent / "good.json").study == "tiny"
    file = spec_file.parent / "bad.json"
    for name, content in _broken(good).items():
        file.write_bytes(content)
        with pytest.raises(LoraError, match=r"is not a plan for this version of lorafile") as told:
            Study.approved(file)
        assert len(str(told.value)) < 1000, name
    for spec in ("nowhere.toml", "a\0b", "/dev/null", "."):
        made = good["made_from"] | {"spec": spec}
        file.write_text(text(good | {"made_from": made}), encoding="utf-8")
        with pytest.raises(LoraError):
            Study.approved(file)


def test_a_plan_file_with_flipped_bytes_never_ends_in_a_traceback(spec_file: Path) -> None:
    study = load(spec_file)
    study.save_plan(study.plan(), spec_file.parent / "good.json")
    content = (spec_file.parent / "good.json").read_bytes()
    noise, refused = random.Random(0), 0
    for _ in range(300):
        changed = bytearray(content)
        for _ in range(noise.choice((1, 2, 20))):
            changed[noise.randrange(len(changed))] = noise.randrange(256)
        try:
            PlanDocument.model_validate_json(bytes(changed))
        except ValueError:
            refused += 1
    assert 0 < refused < 300
