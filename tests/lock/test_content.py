"""What a model's files hold, however they are written."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from safetensors.torch import save_file  # noqa: E402

from lorafile.lock.content import tensors_digest, tokenizer_digest  # noqa: E402
from lorafile.lock.weights import headers  # noqa: E402

A, B = torch.arange(6.0).reshape(2, 3), torch.ones(4, dtype=torch.bfloat16)


def stored(directory: Path, *shards: dict[str, "torch.Tensor"]) -> str:
    directory.mkdir()
    for number, shard in enumerate(shards):
        save_file(shard, directory / f"{number}.safetensors", metadata={"written": str(directory)})
    files = sorted(directory.iterdir())
    return tensors_digest({name: header for file in files for name, header in headers(file).items()})


def test_the_digest_is_over_names_types_shapes_and_bytes(tmp_path: Path) -> None:
    bytes_of = {"a": A.numpy().tobytes(), "b": B.view(torch.int16).numpy().tobytes()}
    digests = {name: hashlib.sha256(content).hexdigest() for name, content in bytes_of.items()}
    rows = [["a", "F32", [2, 3], digests["a"]], ["b", "BF16", [4], digests["b"]]]
    assert stored(tmp_path / "m", {"a": A, "b": B}) == hashlib.sha256(json.dumps(rows).encode()).hexdigest()


@pytest.mark.parametrize(
    ("shards", "same"),
    [
        (({"a": A}, {"b": B}), True),
        (({"b": B}, {"a": A}), True),
        (({"a": A + 1e-6, "b": B},), False),
        (({"a": A.reshape(3, 2), "b": B},), False),
        (({"a": A, "b": B.view(torch.float16)},), False),
        (({"a": A, "c": B},), False),
        (({"a": A},), False),
    ],
)
def test_only_how_tensors_are_divided_into_files_is_left_out(
    tmp_path: Path, shards: tuple[dict[str, "torch.Tensor"], ...], same: bool
) -> None:
    assert (stored(tmp_path / "one", {"a": A, "b": B}) == stored(tmp_path / "other", *shards)) is same


FILES = {
    "tokenizer.json": '{"model": {"vocab": {"a": 0, "b": 1}, "scores": [-1.5]}}',
    "tokenizer_config.json": '{"eos_token": "b", "chat_template": "{{ messages }}"}',
    "vocab.txt": "a\nb\n",
}


@pytest.mark.parametrize(
    ("change", "same"),
    [
        (lambda files: {**files, "tokenizer.json": json.dumps(json.loads(files["tokenizer.json"]), indent=4)}, True),
        (lambda files: {**files, "tokenizer_config.json": '{"eos_token": "b", "chat_template": "x"}'}, True),
        (lambda files: {**files, "tokenizer_config.json": '{"eos_token":\n"b"}', "chat_template.jinja": "x"}, True),
        (lambda files: {**files, "tokenizer.json": files["tokenizer.json"].replace("1.5", "1.25")}, False),
        (lambda files: {**files, "tokenizer.json": files["tokenizer.json"].replace('"b": 1', '"b": 1, "b": 2')}, False),
        (lambda files: {**files, "tokenizer_config.json": '{"eos_token": "a"}'}, False),
        (lambda files: {**files, "vocab.txt": "a\r\nb\r\n"}, False),
        (lambda files: {**files, "tokenizer.json": files["tokenizer.json"][:-1]}, False),
    ],
)
def test_white_space_and_chat_template_of_a_tokenizer_are_left_out(
    tmp_path: Path, change: Callable[[dict[str, str]], dict[str, str]], same: bool
) -> None:
    digests = []
    for name, files in (("one", FILES), ("other", change(FILES))):
        (tmp_path / name).mkdir()
        for file, text in files.items():
            (tmp_path / name / file).write_bytes(text.encode())
        digests.append(tokenizer_digest((tmp_path / name).iterdir()))
    assert (digests[0] == digests[1]) is same
