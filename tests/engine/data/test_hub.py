"""Hub names, against a directory laid out as the hub client keeps its cache, with the network off."""

import shutil
from pathlib import Path

import pytest

from lorafile import Study, specs
from lorafile.errors import NodeError
from lorafile.graph.build import build
from lorafile.lock.data import lock_data
from lorafile.lock.lockfile import lock_file, lock_model, resolve
from lorafile.specs.tables.data import DataTable
from lorafile.specs.tables.settings import ModelTable

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def cache(tmp_path: Path, tiny_model: Path, rows_file: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A hub cache that holds one model and one data set."""
    hub = tmp_path / "hub"
    for kind, name, files in (
        ("models", "org--tiny", list(tiny_model.iterdir())),
        ("datasets", "org--rows", [rows_file]),
    ):
        repository = hub / f"{kind}--{name}"
        snapshot = repository / "snapshots" / COMMIT
        snapshot.mkdir(parents=True)
        (repository / "refs").mkdir()
        (repository / "refs" / "main").write_text(COMMIT, encoding="utf-8")
        (repository / "blobs").mkdir()
        for file in files:
            blob = repository / "blobs" / file.name
            shutil.copy(file, blob)
            (snapshot / ("train.jsonl" if kind == "datasets" else file.name)).symlink_to(blob)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(hub))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub._snapshot_download.constants.HF_HUB_CACHE", str(hub))
    return hub


@pytest.mark.usefixtures("cache")
def test_a_hub_name_is_the_same_model_as_its_files(tiny_model: Path, tmp_path: Path) -> None:
    hub = lock_model(ModelTable(path="org/tiny"), tmp_path)
    local = lock_model(ModelTable(path=str(tiny_model)), tmp_path)
    assert hub.revision == COMMIT
    assert (hub.weights, hub.config, hub.tokenizer) == (local.weights, local.config, local.tokenizer)


@pytest.mark.usefixtures("cache")
def test_a_hub_data_set_is_found_with_its_splits(tmp_path: Path) -> None:
    lock = lock_data(DataTable(path="org/rows"), tmp_path)
    assert lock.rows == {"train": 40}
    assert lock.columns == ["prompt", "completion"]
    assert lock.revision == COMMIT


@pytest.mark.usefixtures("cache")
def test_what_is_not_in_the_cache_is_said(tmp_path: Path) -> None:
    with pytest.raises(NodeError, match='The model "org/other" at revision "v2" is neither'):
        lock_model(ModelTable(path="org/other", revision="v2"), tmp_path)


def test_a_lock_is_enough_to_plan_without_the_hub(cache: Path, tmp_path: Path) -> None:
    text = '[study]\nname = "x"\n[model]\npath = "org/tiny"\n[data]\npath = "org/rows"\n'
    spec = specs.parse(text, tmp_path / "study.toml")
    lock, _ = resolve(spec, None)
    keys = set(build(spec, lock).nodes)
    shutil.rmtree(cache)
    again, changed = resolve(spec, lock)
    assert changed == []
    assert set(build(spec, again).nodes) == keys


def test_a_refresh_says_what_moved_and_only_an_apply_writes_it(cache: Path, tmp_path: Path) -> None:
    file = tmp_path / "study.toml"
    text = '[study]\nname = "x"\n[model]\npath = "org/tiny"\n[data]\npath = "org/rows"\nmax_length = 32\n'
    file.write_text(text + "split = { train = 8, test = 4 }\n[train]\nmax_steps = 1\n", encoding="utf-8")
    study = Study.load(file, tmp_path / ".lora")
    study.lock()
    locked = lock_file(study.spec).read_text(encoding="utf-8")
    rows = cache / "datasets--org--rows"
    moved = rows / "snapshots" / COMMIT[::-1]
    moved.mkdir()
    old = (rows / "snapshots" / COMMIT / "train.jsonl").read_text(encoding="utf-8")
    (moved / "train.jsonl").write_text(old + '{"prompt": "new", "completion": "row"}\n', encoding="utf-8")
    (rows / "refs" / "main").write_text(COMMIT[::-1], encoding="utf-8")
    assert study.plan().warnings == (), "the lock is taken at its word"
    plan = study.plan(refresh=True, target=["data/test:prepare"])
    what = "revision 0123456789ab → 76543210fedc, other digests, train 40 → 41 rows"
    assert plan.warnings == (f"The data org/rows have moved since the lock: {what}.",)
    assert lock_file(study.spec).read_text(encoding="utf-8") == locked
    assert plan.work[0].key not in {change.key for change in study.plan().changes}
    study.apply(plan)
    assert COMMIT[::-1] in lock_file(study.spec).read_text(encoding="utf-8")
    assert study.plan(target=["data/test:prepare"]).work == []


def test_local_data_that_changed_since_the_lock_are_named(spec_file: Path, rows_file: Path) -> None:
    own = spec_file.parent / "rows.jsonl"
    shutil.copy(rows_file, own)
    text = spec_file.read_text(encoding="utf-8").replace(str(rows_file), "rows.jsonl")
    spec_file.write_text(text, encoding="utf-8")
    spec = specs.load(spec_file)
    lock, _ = resolve(spec, None)
    with own.open("a", encoding="utf-8") as stream:
        stream.write('{"prompt": "new", "completion": "row"}\n')
    now, changed = resolve(spec, lock)
    assert now.data["rows.jsonl"].rows == {"train": 41}
    assert ["rows.jsonl do not match the lock" in sentence for sentence in changed] == [True]


def test_pickled_weights_are_never_loaded(tmp_path: Path) -> None:
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "config.json").write_text("{}", encoding="utf-8")
    (tmp_path / "m" / "pytorch_model.bin").write_bytes(b"\x80\x04")
    with pytest.raises(NodeError, match=r"no \.safetensors weights"):
        lock_model(ModelTable(path="m"), tmp_path)
    (tmp_path / "m" / "model.safetensors").write_bytes(b"\x80\x04 a pickle in disguise")
    with pytest.raises(NodeError, match="is not a safetensors file"):
        lock_model(ModelTable(path="m"), tmp_path)
