"""`lora.toml`: what it says is read as written, and what it does not mean is refused at its place."""

from pathlib import Path

import pytest

from lorafile.errors import LoraError, SpecError
from lorafile.plan.clusters.config import find_cluster

LAB = """\
[cluster.lab]
executor = "slurm"
storage = "/scratch/me"
[[cluster.lab.device]]
name = "NVIDIA H100 80GB HBM3"
memory = "80GB"
count = 8
price = "$2.50/h"
[cluster.lab.slurm]
partition = "gpu"
setup = ["module load cuda"]
"""


@pytest.fixture
def spec(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    return tmp_path / "study.toml"


def write(file: Path, text: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text, encoding="utf-8")


def test_a_cluster_beside_the_spec_counts_before_the_users_own(spec: Path, tmp_path: Path) -> None:
    own = tmp_path / "config" / "lorafile" / "clusters.toml"
    write(own, LAB + '[cluster.cloud]\nexecutor = "ray"\n')
    assert find_cluster("lab", spec).slurm.partition == "gpu"
    assert find_cluster("cloud", spec).executor == "ray"
    write(spec.parent / "lora.toml", LAB.replace('"gpu"', '"long"'))
    assert find_cluster("lab", spec).slurm.partition == "long"
    assert find_cluster("slurm", spec).device == []  # an executor by its own name, with its defaults


@pytest.mark.parametrize(
    ("wrong", "line", "words"),
    [
        (LAB.replace("partition", "partitoin"), 10, 'did you mean "partition"?'),
        (LAB.replace('"slurm"', '"slrm"', 1), 2, 'one of "local", "ray", "slurm"'),
        (LAB.replace('"80GB"', '"80"'), 6, "a size such as"),
        (LAB.replace("count = 8", 'count = "eight"'), 7, "a whole number"),
        (LAB.replace('executor = "slurm"\n', ""), 1, "is required"),
        (LAB.replace("[[cluster.lab.device]]", "[[cluster.lab.device]"), 4, "not valid TOML"),
        (LAB.replace("$2.50/h", "cheap"), 8, "a price per hour such as"),
    ],
)
def test_a_mistake_is_told_with_its_line(spec: Path, wrong: str, line: int, words: str) -> None:
    write(spec.parent / "lora.toml", wrong)
    with pytest.raises(SpecError) as told:
        find_cluster("lab", spec)
    (problem,) = told.value.problems
    assert problem.line == line
    assert words in problem.message


def test_an_unknown_cluster_is_refused_with_those_that_there_are(spec: Path) -> None:
    write(spec.parent / "lora.toml", LAB)
    with pytest.raises(LoraError, match=r'no cluster is named "lba".*did you mean "lab"'):
        find_cluster("lba", spec)
