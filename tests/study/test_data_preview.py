"""`lora data`: what the model will see, before anything is paid for; the data card; private data; leaks."""

import json
import re
import statistics
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

torch = pytest.importorskip("torch")

from data_fixture import NAMED, SPEC, SPLIT, sst2, study  # noqa: E402

from lorafile import Study  # noqa: E402
from lorafile.analysis.registry import analyses  # noqa: E402
from lorafile.cli.main import main  # noqa: E402
from lorafile.engine.data.encode import load_tokenizer  # noqa: E402
from lorafile.engine.data.examples import digests  # noqa: E402
from lorafile.report.writer import write_report  # noqa: E402
from lorafile.results.datacard import duplicates, leaks  # noqa: E402
from lorafile.study.data_preview import preview  # noqa: E402


def lora(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, list(map(str, arguments)))


def looked(spec: Path, *options: str) -> dict[str, Any]:
    done = lora("data", "show", spec, "--json", *options)
    assert done.exit_code == 0, done.output
    found: dict[str, Any] = json.loads(done.output)
    return found


def test_examples_are_what_training_reads_with_its_special_tokens(tmp_path: Path, tiny_model: Path) -> None:
    """The parts against the very tokens that prepare leaves."""
    from lorafile.engine.batching.tokens import Tokens
    from lorafile.state import State

    mine = study(tmp_path, tiny_model, sst2(tmp_path), SPLIT + NAMED)
    found = looked(mine.spec.file, "--rows", "2")
    train = found["splits"][0]
    mine.apply()
    state = State.read(tmp_path / ".lora")
    attempt = next(a for many in state.latest().values() for a in many if a.address == "data/train:prepare")
    tokens = Tokens.load(state.objects.path(attempt.outputs["tokens.safetensors"]))
    tokenizer = load_tokenizer(str(tiny_model))
    for index, example in enumerate(train["examples"]):
        ids, marks = tokens.example(index)
        assert (example["tokens"], example["supervised"]) == (len(ids), int(marks.sum()))
        assert "".join(part["text"] for part in example["parts"]) == tokenizer.decode(ids)
        assert example["parts"][-1]["supervised"]
        assert example["parts"][-1]["text"].endswith(tokenizer.eos_token)
        assert not example["parts"][0]["supervised"]
    lengths = tokens.lengths()
    assert train["tokens"]["mean"] == pytest.approx(statistics.mean(lengths))
    assert train["tokens"]["median"] == statistics.median(lengths)
    assert train["tokens"]["max"] == max(lengths)
    assert train["tokens"]["total"] == sum(lengths)
    assert train["supervised_fraction"] == pytest.approx(float(tokens.supervised.float().mean()))


def test_off_a_terminal_brackets_mark_what_is_supervised(tmp_path: Path, tiny_model: Path) -> None:
    mine = study(tmp_path, tiny_model, sst2(tmp_path), SPLIT + NAMED)
    told = lora("data", "show", mine.spec.file, "--rows", "1", "--split", "test")
    assert told.exit_code == 0, told.output
    assert re.search(r"test, row 0: \d of \d+ tokens supervised\n", told.output)
    assert re.search(r"⟦ ?rome ?</s>⟧", told.output)
    assert "⟦…⟧ is supervised" in told.output
    assert "Leak: 24 of 24 test examples" not in told.output  # train has twenty of them
    assert re.search(r"Leak: 20 of 24 test examples of .* are also in train \(verbatim\)", told.output)


def test_what_a_head_classifies_is_shown_with_its_label(tmp_path: Path, tiny_model: Path) -> None:
    """No token is supervised: the loss is of the label."""
    mine = study(tmp_path, tiny_model, sst2(tmp_path), SPLIT + NAMED)
    spec = mine.spec.file
    spec.write_text(
        spec.read_text(encoding="utf-8").replace("[data]", 'task_type = "SEQ_CLS"\n[data]'), encoding="utf-8"
    )
    told = lora("data", "show", spec, "--rows", "1", "--split", "test").output
    assert re.search(r"test, row 0: \d+ tokens, label rome\n", told)
    assert "supervised" not in told
    assert looked(spec, "--rows", "2")["splits"][0]["supervised_fraction"] is None


def test_wrong_names_are_one_sentence(tmp_path: Path, tiny_model: Path, rows_file: Path) -> None:
    mine = study(tmp_path, tiny_model, rows_file)
    told = lora("data", "show", mine.spec.file, "--split", "dev")
    assert (told.exit_code, told.output) == (
        1,
        '--split: there is no "dev" split; available: train, validation, test.\n',
    )
    told = lora("data", "show", mine.spec.file, "--configuration", "lor")
    assert told.output == '--configuration: there is no "lor"; did you mean "lora"?\n'


def test_behind_an_untuned_row_the_train_split_is_still_shown(
    tmp_path: Path, tiny_model: Path, rows_file: Path
) -> None:
    mine = study(tmp_path, tiny_model, rows_file, sweep='[[sweep]]\nmethod = ["none", "lora"]\n')
    found = looked(mine.spec.file, "--rows", "1")
    assert found["configuration"] == "method/method=lora"
    assert [split["split"] for split in found["splits"]] == ["train", "validation", "test"]


def test_the_catalogue_is_listed() -> None:
    told = lora("data", "list")
    assert told.exit_code == 0
    assert re.search(r"gsm8k +question +MIT +exact_match, log_loss", told.output)
    assert set(json.loads(lora("data", "list", "--json").output)["sets"]) >= {"sst2", "squad_v2"}


def test_a_long_example_shows_where_it_is_cut(tmp_path: Path, tiny_model: Path, rows_file: Path) -> None:
    mine = study(tmp_path, tiny_model, rows_file, 'too_long = "truncate"')
    mine.spec.file.write_text(mine.spec.file.read_text(encoding="utf-8").replace("= 64", "= 9"), encoding="utf-8")
    parts = looked(mine.spec.file, "--rows", "1")["splits"][0]["examples"][0]["parts"]
    assert [part["cut"] for part in parts][-1]
    assert not parts[0]["cut"]


def test_duplicates_are_found_exactly_and_but_for_case_and_punctuation() -> None:
    texts = ["Where is Anna?", "where is  anna", "Where is Anna?", "Where is Tom?"]
    found = [digests(text) for text in texts]
    assert duplicates(found) == (1, 2)
    (leak,) = leaks({"train": found[:1], "test": [*found[1:], *found[:1]]})
    assert leak == {"held": "test", "among": "train", "rows": 3, "exactly": 2, "of": 4}


def leaky(tmp_path: Path, model: Path, more: str = "") -> Study:
    """Ten questions, of which two stand in both files, one of them in other letters."""
    where = tmp_path / "data"
    where.mkdir()
    train = [{"prompt": f"where does anna number {n} live ?", "completion": " paris"} for n in range(10)]
    test = [train[0], {"prompt": "Where does ANNA number 1 live?", "completion": " Paris."}]
    test += [{"prompt": f"who lives in house {n} ?", "completion": " zaphod"} for n in range(4)]
    for name, rows in (("train", train), ("test", test)):
        (where / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    file = tmp_path / "study.toml"
    split = 'split = { train = "train", test = "test" }\n'
    file.write_text(SPEC.format(model=model, data=where, more=split + more), encoding="utf-8")
    return Study.load(file, tmp_path / ".lora")


def test_leaks_are_told_after_an_apply_and_in_the_report(tmp_path: Path, tiny_model: Path) -> None:
    mine = leaky(tmp_path, tiny_model)
    told = lora("apply", mine.spec.file, "--state", tmp_path / ".lora", "--yes")
    assert told.exit_code == 0, told.output
    assert re.search(
        r"Warning: 2 of 6 test examples of .* are also in train \(1 verbatim, the others except", told.output
    )
    results = mine.gather()
    assert any(line.startswith("2 of 6 test examples") for line in results.warnings)
    card = next(found for found in analyses(results, []) if found.kind == "data")
    rows = {row["split"]: row for row in card.tables[0].frame.to_dict("records")}
    assert (rows["train"]["examples"], rows["test"]["examples"], rows["test"]["duplicates"]) == (10, 6, 0)
    assert rows["train"]["median_tokens"] <= rows["train"]["p95_tokens"] <= rows["train"]["longest"]


def test_no_text_of_private_data_is_in_a_report(tmp_path: Path, tiny_model: Path) -> None:
    mine = leaky(tmp_path, tiny_model, "private = true\n")
    mine.apply()
    results = mine.gather()
    found = analyses(results, [])
    for file in write_report(results, found, tmp_path / "report"):
        if file.suffix in (".html", ".md"):
            text = file.read_text(encoding="utf-8")
            assert "zaphod" not in text
            assert "The data are private" in text
    assert "private:" in lora("data", "show", mine.spec.file).output


def test_privacy_changes_no_key(tmp_path: Path, tiny_model: Path) -> None:
    open_ = set(leaky(tmp_path, tiny_model).plan().graph.nodes)
    file = tmp_path / "study.toml"
    file.write_text(file.read_text(encoding="utf-8").replace("[data]", "[data]\nprivate = true"), encoding="utf-8")
    assert set(Study.load(file, tmp_path / ".lora").plan().graph.nodes) == open_


def test_a_published_set_is_shown_whole(tmp_path: Path, shared: Path) -> None:
    file = tmp_path / "study.toml"
    model = shared / "models" / "stories260K-hf"
    file.write_text(
        f'[study]\nname = "x"\n[model]\npath = "{model}"\n[data]\npath = "{shared}/data/gsm8k"\nlike = "gsm8k"\n',
        encoding="utf-8",
    )
    found = preview(Study.load(file, tmp_path / ".lora"))
    assert found["splits"][0]["rows"] == 6726
