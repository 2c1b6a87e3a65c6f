"""What an apply refuses before anything is trained: a package that a method or an optimizer needs is not installed."""

from pathlib import Path

import pytest

from lorafile import Study
from lorafile.apply import workers
from lorafile.errors import MissingExtra


def test_a_method_whose_package_is_missing_is_refused_before_anything_runs(
    spec_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("torch")
    text = spec_file.read_text(encoding="utf-8") + '[[sweep]]\nname = "m"\nmethod = ["lora", "adamss"]\n'
    spec_file.write_text(text, encoding="utf-8")
    there = workers.installed
    monkeypatch.setattr(workers, "installed", lambda name: None if name == "scikit-learn" else there(name))
    study = Study.load(spec_file, spec_file.parent / ".lora")
    with pytest.raises(
        MissingExtra, match='method = "adamss" needs scikit-learn, which is not installed here'
    ) as caught:
        study.apply()
    assert "[methods]" in str(caught.value)
    assert not list(spec_file.parent.glob(".lora/objects/*/*"))
