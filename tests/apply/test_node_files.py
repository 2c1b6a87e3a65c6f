"""Requests by content: named by digests here, turned into paths there, with the bytes that they should have."""

from pathlib import Path

import pytest

from lorafile.apply.executors.content import ContentIndex, FileStore, Localizer, digests_of
from lorafile.engine.request import Request
from lorafile.engine.worker.channel import Work
from lorafile.errors import LoraError
from lorafile.files.digests import file_digest, text_digest


@pytest.fixture
def work(tmp_path: Path) -> Work:
    """A training of a model of three files, with one input and a checkpoint."""
    here = tmp_path / "here"
    for name, text in {
        "model/config.json": "{}",
        "model/model.safetensors": "weights",
        "model/training_args.bin": "pickled",
        "rows.jsonl": "rows",
        "objects/ab": "tokens",
        "running/checkpoint.json": "step",
    }.items():
        (here / name).parent.mkdir(parents=True, exist_ok=True)
        (here / name).write_text(text)
    paths = {"model": str(here / "model"), "checkpoint": str(here / "running"), "data": [str(here / "rows.jsonl")]}
    paths["shots"] = [{"path": str(here / "rows.jsonl"), "encoding": "utf-8"}]
    inputs = {"train": {"tokens.safetensors": str(here / "objects" / "ab")}}
    return Work([[Request("key", "train", "a:train", {}, paths, inputs)]])


def supply(store: FileStore, index: ContentIndex, digests: list[str], size: int = 3) -> None:
    for digest in digests:
        content = index.files[digest].read_bytes()
        for offset in range(0, len(content), size):
            store.add_piece(digest, offset, len(content), content[offset : offset + size])


def test_a_request_travels_without_paths_and_means_the_same_there(work: Work, tmp_path: Path) -> None:
    index, store = ContentIndex(), FileStore(tmp_path / "node")
    sent = index.refer(work)
    assert str(tmp_path) not in str(sent)
    localizer = Localizer(store, tmp_path / "node" / "running")
    assert set(localizer.missing(sent)) == digests_of(sent)
    supply(store, index, localizer.missing(sent))
    assert localizer.missing(sent) == []
    (there,) = localizer.localize(sent).replicates[0]
    model = Path(there.paths["model"])
    assert sorted(file.name for file in model.iterdir()) == ["config.json", "model.safetensors"], "no pickles"
    assert (model / "model.safetensors").read_text() == "weights"
    assert Path(there.paths["data"][0]).name == "rows.jsonl"
    assert Path(there.paths["shots"][0]["path"]).read_text() == "rows"
    assert there.paths["shots"][0]["encoding"] == "utf-8"
    assert Path(there.inputs["train"]["tokens.safetensors"]).read_text() == "tokens"
    assert (Path(there.paths["checkpoint"]) / "checkpoint.json").read_text() == "step"
    assert all(str(tmp_path / "node") in str(path) for path in (model, *there.paths["data"]))


def test_a_copy_with_other_bytes_is_fetched_again(tmp_path: Path) -> None:
    store, digest = FileStore(tmp_path), text_digest("right")
    store.path(digest).write_text("wrong")
    assert not store.has(digest)
    store.add_piece(digest, 0, 5, b"wrong")
    assert not store.has(digest)
    store.add_piece(digest, 0, 5, b"right")
    assert store.has(digest)


def test_a_transfer_that_begins_anew_leaves_nothing_of_the_first(tmp_path: Path) -> None:
    store, digest = FileStore(tmp_path), text_digest("abcdef")
    store.add_piece(digest, 0, 6, b"abc")
    store.add_piece(digest, 0, 6, b"abc")
    store.add_piece(digest, 3, 6, b"def")
    assert store.has(digest)
    assert file_digest(store.path(digest)) == digest


@pytest.mark.parametrize("name", ["../outside", "/etc/outside", "a/../../outside"])
def test_no_name_leads_out_of_a_directory(tmp_path: Path, name: str) -> None:
    store = FileStore(tmp_path)
    with pytest.raises(LoraError, match="points outside its directory"):
        store.tree({"entry": "", "files": {name: ["ab", 1]}})
