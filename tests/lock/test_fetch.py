"""`lora fetch` through huggingface_hub's own client: against a hub on a local port, and with the network off."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("torch")

from hub_server import COMMIT, Hub, running

SPEC = '[study]\nname = "x"\nseeds = [1]\n[model]\npath = "org/tiny"\n[data]\npath = "org/rows"\nmax_length = 32\n'


@pytest.fixture
def hub(tiny_model: Path, rows_file: Path) -> Iterator[Hub]:
    files = {
        "models/org/tiny": {file.name: file for file in tiny_model.iterdir()},
        "datasets/org/rows": {"data/train.jsonl": rows_file},
    }
    with running(Hub(files)) as server:
        yield server


@pytest.fixture
def spec(tmp_path: Path) -> Path:
    file = tmp_path / "study.toml"
    file.write_text(SPEC, encoding="utf-8")
    return file


def lora(hub: Hub, where: Path, *words: str, **settings: str) -> subprocess.CompletedProcess[str]:
    """Run the command line as a user does: in a process whose hub client reads its own settings."""
    plain = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "HUGGING"))}
    own = {"HF_ENDPOINT": hub.url, "HF_HOME": str(where / "hf"), "HOME": str(where), "COLUMNS": "200"}
    command = [sys.executable, "-P", "-c", "from lorafile.cli.main import main; main()", *words]
    return subprocess.run(command, capture_output=True, text=True, cwd=where, env={**plain, **own, **settings})


def test_everything_comes_at_the_locks_revisions_and_only_once(hub: Hub, spec: Path, tmp_path: Path) -> None:
    first = lora(hub, tmp_path, "fetch")
    assert (first.returncode, first.stderr) == (0, "")
    assert f"model org/tiny at {COMMIT[:12]}" in first.stdout
    assert first.stdout.count("downloaded to") == 2
    lock = json.loads((tmp_path / "study.lock").read_text(encoding="utf-8"))
    assert lock["models"]["org/tiny"]["revision"] == COMMIT
    assert lock["data"]["org/rows"]["rows"] == {"train": 40}
    hub.asked.clear()
    again = lora(hub, tmp_path, "fetch", "--json")
    assert [row["how"] for row in json.loads(again.stdout)["fetched"]] == ["cached", "cached"]
    assert not [line for line in hub.asked if line.startswith("GET") and "resolve" in line]
    offline = lora(hub, tmp_path, "plan", "--json", HF_HUB_OFFLINE="1")
    assert json.loads(offline.stdout)["summary"]["run"] > 0


def test_plain_directories_are_the_same_study_without_a_hub(hub: Hub, spec: Path, tmp_path: Path) -> None:
    done = lora(hub, tmp_path, "fetch", "--to", "here")
    assert 'model.path = "here/models/org--tiny"' in done.stdout
    assert 'data.path = "here/data/org--rows"' in done.stdout
    keys = {row["key"] for row in json.loads(lora(hub, tmp_path, "plan", "--json").stdout)["changes"]}
    spec.write_text(SPEC.replace("org/tiny", "here/models/org--tiny").replace("org/rows", "here/data/org--rows"))
    elsewhere = lora(hub, tmp_path, "plan", "--json", HF_HUB_OFFLINE="1", HF_HOME=str(tmp_path / "none"))
    assert {row["key"] for row in json.loads(elsewhere.stdout)["changes"]} == keys


def test_what_is_local_or_built_in_is_here_already(hub: Hub, spec: Path, tmp_path: Path, rows_file: Path) -> None:
    spec.write_text(SPEC.replace("org/tiny", "builtin:facts-llama").replace("org/rows", str(rows_file)))
    done = lora(hub, tmp_path, "fetch")
    assert "built in," in done.stdout
    assert "already here," in done.stdout
    assert "Nothing comes from the hub" in done.stdout
    assert hub.asked == []


def test_files_that_are_not_the_locks_are_refused(hub: Hub, spec: Path, tmp_path: Path) -> None:
    lora(hub, tmp_path, "fetch")
    blob = (tmp_path / f"hf/hub/models--org--tiny/snapshots/{COMMIT}/model.safetensors").resolve()
    content = bytearray(blob.read_bytes())
    content[-1] ^= 1
    blob.chmod(0o644)
    blob.write_bytes(content)
    done = lora(hub, tmp_path, "fetch")
    assert done.returncode == 1
    assert "do not match the lock (weights differ)" in done.stderr


@pytest.mark.parametrize("token", ["", "hf_SecretSecretSecret"])
def test_a_gated_model_names_its_page_and_where_a_token_is_read_from(
    hub: Hub, spec: Path, tmp_path: Path, token: str
) -> None:
    hub.gated.add("models/org/tiny")
    done = lora(hub, tmp_path, "fetch", **({"HF_TOKEN": token} if token else {}))
    assert done.returncode == 1
    assert f'The model "org/tiny" is gated: accept its conditions at {hub.url}/org/tiny.' in done.stderr
    assert f"which stores a token in {tmp_path}/hf/token" in done.stderr
    assert ("The current token has no access" if token else "No token is set") in done.stderr
    assert ("Bearer hf_SecretSecretSecret" in hub.tokens) == bool(token)
    assert len(done.stderr.splitlines()) == 1
    assert "hf_" not in done.stderr


@pytest.mark.parametrize("command", ["fetch", "plan", "lock"])
def test_what_the_hub_does_not_have_is_one_sentence(hub: Hub, spec: Path, tmp_path: Path, command: str) -> None:
    spec.write_text(SPEC.replace("org/tiny", "org/other"))
    done = lora(hub, tmp_path, command)
    assert f'The hub has no model "org/other", or it is private: see {hub.url}/org/other.' in done.stderr
    spec.write_text(SPEC.replace("[data]", 'revision = "v2"\n[data]'))
    done = lora(hub, tmp_path, command)
    assert 'The model "org/tiny" has no revision "v2"' in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_no_network_is_one_sentence(hub: Hub, spec: Path, tmp_path: Path) -> None:
    offline = lora(hub, tmp_path, "fetch", HF_HUB_OFFLINE="1")
    assert "nor in the hub cache, and HF_HUB_OFFLINE is set." in offline.stderr
    down = lora(hub, tmp_path, "fetch", HF_ENDPOINT="http://127.0.0.1:9")
    assert "http://127.0.0.1:9 cannot be reached" in down.stderr
    assert (offline.returncode, down.returncode) == (1, 1)


def test_a_disk_without_room_is_said_before_the_download(hub: Hub, spec: Path, tmp_path: Path) -> None:
    from lorafile.engine.data.hub import check_room
    from lorafile.errors import NodeError

    with pytest.raises(NodeError, match=r'The model "org/tiny" needs 1000000000\.0 GB, but the disk of .* GB free'):
        check_room("org/tiny", "model", 10**18)
