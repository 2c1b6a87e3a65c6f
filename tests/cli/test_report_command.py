import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from results_fixture import study

from lorafile.cli.main import main
from lorafile.study.study import Study

SPEC = """
study.name = "capitals"
model.path = "m"
data.path = "d"
evaluate.metrics = ["exact_match", "log_loss"]
[[sweep]]
name = "rank"
lora.r = [1, 8]
[[analysis]]
kind = "rates"
"""
CLAIM = """
[[claim]]
text = "{text}"
one = "rank/r=8"
other = "rank/r=1"
is = "{word}"
"""
HOLDS, FAILS = CLAIM.format(text="Eight beats one", word="better"), CLAIM.format(text="One beats eight", word="worse")


@pytest.fixture
def lora(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Run `lora report` on a spec whose state holds the made-up study."""
    gathered = {"results": study()}

    def gather(self: Study) -> Any:
        from lorafile.results.claims_file import claims_file, read_claims

        tables, recorded = self.spec.tables, read_claims(claims_file(self.spec.file))
        stated = {"claims": tuple(tables.claim), "recorded": recorded, "folder": tmp_path}
        return replace(gathered["results"], declared=tuple(tables.analysis), **stated)

    monkeypatch.setattr(Study, "gather", gather)

    def run(text: str, *options: str, **changed: Any) -> Result:
        gathered["results"] = replace(study(), **changed)
        (tmp_path / "study.toml").write_text(SPEC + text, encoding="utf-8")
        return CliRunner().invoke(main, ["report", str(tmp_path / "study.toml"), *options])

    return run


def test_check_passes_where_every_claim_holds_and_writes_nothing(lora: Any, tmp_path: Path) -> None:
    told = lora(HOLDS, "--check")
    assert (told.exit_code, told.stderr) == (0, "")
    assert told.stdout.startswith("supported: “Eight beats one”: rank/r=8 is better than rank/r=1")
    assert told.stdout.count("\n") == 1
    assert [file.name for file in tmp_path.iterdir()] == ["study.toml"]


def test_check_ends_with_6_where_one_does_not(lora: Any) -> None:
    told = lora(HOLDS + FAILS, "--check")
    assert told.exit_code == 6
    assert [line.split(":")[0] for line in told.stdout.splitlines()] == ["supported", "refuted"]
    assert "1 of 2 claims of" in told.stderr
    shown = lora(HOLDS + FAILS, "--check", "--json")
    assert shown.exit_code == 6
    assert [claim["status"] for claim in json.loads(shown.stdout)["claims"]] == ["supported", "refuted"]


def test_a_report_renews_what_a_changed_run_made_stale(lora: Any, tmp_path: Path) -> None:
    assert lora(HOLDS).exit_code == 0
    first = (tmp_path / "study.claims").read_bytes()
    assert lora(HOLDS, "--check").exit_code == 0
    runs = study().runs
    again = runs["key"].where(~((runs["configuration"] == "rank/r=1") & (runs["seed"] == 42)), "another")
    stale = lora(HOLDS, "--check", runs=runs.assign(key=again))
    assert stale.exit_code == 6
    assert stale.stdout.startswith("stale: ")
    assert (tmp_path / "study.claims").read_bytes() == first
    renewed = lora(HOLDS, runs=runs.assign(key=again))
    assert renewed.exit_code == 0
    assert "rank/r=1/seed=42 was run again" in renewed.stderr
    assert lora(HOLDS, "--check", runs=runs.assign(key=again)).exit_code == 0


def test_the_record_of_the_same_runs_is_the_same_bytes(lora: Any, tmp_path: Path) -> None:
    lora(HOLDS + FAILS)
    first = (tmp_path / "study.claims").read_bytes()
    lora(FAILS + HOLDS)
    assert (tmp_path / "study.claims").read_bytes() == first


def test_check_with_nothing_to_check_says_so(lora: Any) -> None:
    told = lora("", "--check")
    assert told.exit_code == 0
    assert "has no claims" in told.stderr


def test_check_is_no_way_to_write_a_report(lora: Any) -> None:
    assert lora(HOLDS, "--check", "--out", "elsewhere").exit_code == 64


def test_an_analysis_that_fails_ends_with_1_and_the_report_is_there(lora: Any, tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text("def analyse(results):\n    return 1 / 0\n", encoding="utf-8")
    own = '[[analysis]]\nkind = "own"\nfile = "own.py"\n'
    told = lora(own)
    assert told.exit_code == 1
    assert "own.py, line 2: ZeroDivisionError: division by zero" in told.stderr
    assert (tmp_path / "report" / "report.html").is_file()
    shown = lora(own, "--json")
    assert shown.exit_code == 1
    assert any(one["name"] == "own-own" for one in json.loads(shown.stdout)["analyses"])
