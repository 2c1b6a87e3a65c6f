"""The GitHub Action's script on a real git repository, with a `gh` that notes what it is asked; the hooks' manifest."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

pytest.importorskip("torch")

from git_fixture import RANKS, commit, edit, git

from lorafile import Study

ROOT = Path(__file__).resolve().parents[2]
ACTION = ROOT / ".github" / "actions" / "plan"
GH = """#!/usr/bin/env python3
import json, os, sys
from pathlib import Path
log = Path(os.environ["LOG"])
body = next((Path(a.removeprefix("body=@")).read_text() for a in sys.argv if a.startswith("body=@")), None)
with log.open("a") as out:
    out.write(json.dumps({"arguments": sys.argv[1:], "body": body}) + "\\n")
if "--paginate" in sys.argv:
    print(os.environ.get("OURS", ""))
"""


@pytest.fixture
def repository(spec_file: Path) -> Path:
    with spec_file.open("a", encoding="utf-8") as stream:
        stream.write(RANKS)
    Study.load(spec_file).lock()
    git(spec_file, "init", "-q", "-b", "main")
    commit(spec_file)
    return spec_file


def review(spec: Path, **more: str) -> tuple[subprocess.CompletedProcess[str], list[dict[str, object]]]:
    """Run the script as the action does; return what it did, and what it asked of `gh`."""
    tools = spec.parent / ".git" / "tools"
    tools.mkdir(exist_ok=True)
    (tools / "gh").write_text(GH, encoding="utf-8")
    (tools / "lora").write_text(
        f'#!/bin/sh\nexec "{sys.executable}" -c "from lorafile.cli.main import main; main()" "$@"\n', encoding="utf-8"
    )
    for tool in tools.iterdir():
        tool.chmod(0o755)
    log, summary = tools.parent / "log", tools.parent / "summary"
    log.write_text("", encoding="utf-8")
    base = subprocess.run(["git", "rev-parse", "HEAD"], cwd=spec.parent, capture_output=True, text=True).stdout.strip()
    environment = {
        "PATH": f"{tools}:{os.environ['PATH']}",
        "LOG": str(log),
        "SPECS": "study.toml",
        "BASE": base,
        "PULL_REQUEST": "7",
        "GITHUB_REPOSITORY": "some/body",
        "GITHUB_STEP_SUMMARY": str(summary),
    }
    done = subprocess.run(
        ["bash", str(ACTION / "review.sh")],
        cwd=spec.parent,
        env={**os.environ, **environment, **more},
        capture_output=True,
        text=True,
    )
    return done, [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]


@pytest.mark.skipif(shutil.which("iconv") is None, reason="iconv is not here")
def test_a_pull_request_gets_one_comment_that_is_kept_up_to_date(repository: Path) -> None:
    edit(repository, ("lora.r = [2, 4]", "lora.r = [2, 4, 128]"), ('name = "untuned"', 'name = "base"'))
    done, asked = review(repository)
    assert done.returncode == 0, done.stderr
    body = str(asked[-1]["body"])
    assert asked[-1]["arguments"][:4] == ["api", "--silent", "--method", "POST"]  # type: ignore[index]
    assert "repos/some/body/issues/7/comments" in asked[-1]["arguments"]  # type: ignore[operator]
    assert body.startswith("<!-- lorafile plan -->\n")
    assert "**1 configuration added, 1 renamed.** Nothing is trained again." in body
    assert "### Plan of tiny" in body
    _, asked = review(repository, OURS="123", PRICE="3600 / h")
    assert " at 3600.00 an hour" in str(asked[-1]["body"])
    assert asked[-1]["arguments"][3:5] == ["PATCH", "repos/some/body/issues/comments/123"]  # type: ignore[index]
    assert (repository.parent / ".git" / "summary").read_text(encoding="utf-8").count("### Plan of tiny") == 2


def test_a_wrong_spec_is_commented_and_fails_the_job(repository: Path) -> None:
    edit(repository, ("lora.r = [2, 4]", 'lora.r = [2, "```x"]'))
    done, asked = review(repository, SPECS="study.toml\n\n")
    assert done.returncode == 3
    body = str(asked[-1]["body"])
    assert "study.toml:" in body
    assert body.count("```") == 4, "what a spec says ends no block"


def test_without_a_pull_request_the_summary_alone_has_the_plan(repository: Path) -> None:
    done, asked = review(repository, BASE="", PULL_REQUEST="")
    assert done.returncode == 0, done.stderr
    assert asked == []
    assert "### Plan of tiny" in (repository.parent / ".git" / "summary").read_text(encoding="utf-8")


def test_the_action_gives_its_script_what_it_reads() -> None:
    action = yaml.safe_load((ACTION / "action.yml").read_text(encoding="utf-8"))
    step = action["runs"]["steps"][-1]
    script = (ACTION / "review.sh").read_text(encoding="utf-8")
    for name in ("SPECS", "BASE", "PULL_REQUEST", "PRICE", "COMMENT"):
        assert name in step["env"]
        assert f"${{{name}:" in script
    used = set(re.findall(r"inputs\.(\w+)", str(action["runs"])))
    assert used == set(action["inputs"])
    assert all("${{" not in each["run"] for each in action["runs"]["steps"]), "no input is ever code"


def test_the_hook_finds_specs_and_no_other_toml() -> None:
    (hook,) = yaml.safe_load((ROOT / ".pre-commit-hooks.yaml").read_text(encoding="utf-8"))
    assert hook["entry"] == "lora validate"
    for name, found in (("study.toml", True), ("a/rank.study.toml", True), ("pyproject.toml", False)):
        assert bool(re.search(hook["files"], name)) is found
