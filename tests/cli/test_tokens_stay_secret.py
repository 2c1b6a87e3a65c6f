"""No token ever enters state, report, plan, lock, log or error message."""

import json
import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("torch")

from hub_server import Hub, running

from lorafile.engine.data.hub import hide_tokens, refusal

TOKEN = "hf_RecognisableSecretValue0123456789"


def lora(hub: Hub, where: Path, *words: str, token: str = TOKEN) -> subprocess.CompletedProcess[str]:
    own = {"HF_ENDPOINT": hub.url, "HF_HOME": str(where.parent / "hf"), "HF_TOKEN": token, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-P", "-c", "from lorafile.cli.main import main; main()", *words]
    return subprocess.run(command, capture_output=True, text=True, cwd=where, env={**os.environ, **own})


def test_a_token_is_nowhere_after_a_whole_study(spec_file: Path, tmp_path: Path, tiny_model: Path) -> None:
    hub = Hub({"models/org/tiny": {file.name: file for file in tiny_model.iterdir()}})
    text = spec_file.read_text(encoding="utf-8").replace(str(tiny_model), "org/tiny").replace("[1, 2]", "[1]")
    where = tmp_path / "work"
    where.mkdir()
    (where / "study.toml").write_text(text + '[[sweep]]\nname = "rate"\ntrain.max_steps = [2]\n', encoding="utf-8")
    with running(hub):
        told = [lora(hub, where, *words) for words in (["plan", "--json"], ["apply", "--yes"], ["report"], ["fetch"])]
        assert [done.returncode for done in told] == [0, 0, 0, 0], told
        assert f"Bearer {TOKEN}" in hub.tokens, "the hub was asked with the token"
        hub.gated.add("models/org/other")
        hub.files["models/org/other"] = hub.files["models/org/tiny"]
        (where / "other.toml").write_text(text.replace("org/tiny", "org/other"), encoding="utf-8")
        told += [lora(hub, where, *words, "other.toml") for words in (["fetch"], ["plan"], ["--debug", "plan"])]
        assert told[-2].returncode == 1
        broken = lora(hub, where, "fetch", "other.toml", token=TOKEN + "\x01é")
        told.append(broken)
        assert broken.returncode == 1
    for done in told:
        assert TOKEN not in done.stdout + done.stderr
    (where / ".lora" / "dump.sql").write_text(
        "\n".join(sqlite3.connect(where / ".lora" / "state.db").iterdump()), encoding="utf-8"
    )
    files = [file for file in where.rglob("*") if file.is_file()]
    assert {"study.lock", "worker.log", "report.html", "state.db"} <= {file.name for file in files}
    for file in files:
        assert TOKEN.encode() not in file.read_bytes(), file


def test_a_failing_node_leaves_a_traceback_without_the_token(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from lorafile.engine import run as door
    from lorafile.engine.model.base import Bases
    from lorafile.engine.request import Request

    def broken(*_: object) -> None:
        raise RuntimeError(f"Illegal header value b'Bearer {TOKEN}'")

    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setattr("lorafile.engine.nodes.train.train", broken)
    done = door.run(Request("k", "train", "a", {}, {}), tmp_path / "out", Bases(), lambda _: None)
    assert done.outcome == "failed"
    told = json.dumps([done.message, (tmp_path / "out" / "traceback.txt").read_text(encoding="utf-8")])
    assert TOKEN not in told
    assert "***" in told


def test_what_looks_like_a_token_is_hidden_whoever_set_it() -> None:
    assert hide_tokens("a hf_abcdefghijkl b") == "a *** b"
    assert hide_tokens("Illegal header value b'Bearer x!y'") == "Illegal header value b'Bearer ***'"
    told = refusal("org/x", "model", None, ValueError("Illegal header value b'Bearer x!y'"))
    assert told == "The hub did not return the model \"org/x\": Illegal header value b'Bearer ***'"
