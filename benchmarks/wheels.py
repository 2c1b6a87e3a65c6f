"""The wheels that `gpu.sh` may need on a machine without a network: downloaded here, in the versions installed here.

`python benchmarks/wheels.py` fills a folder (`.wheels`, which git ignores); `--dry-run` only lists them. Both end with
an error where wheels and checkout are more than may travel. Charts, tables and statistics stay at home: training takes
none of them. torch, and what it brings, is that machine's own. Of bitsandbytes, which carries a library for every
version of CUDA, those of the ones that are asked for are kept.
"""

import argparse
import re
import subprocess
import sys
import tempfile
import tomllib
import zipfile
from importlib.metadata import PackageNotFoundError, distribution, version
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
LIMIT = 64  # MiB that may travel
STAYS = {"altair", "pandas", "pyarrow", "scipy", "vl-convert-python", "lorafile"}  # not needed to train
THERE = {"torch", "numpy", "pip"}  # and what they need
MORE = ("pytest", "trl>=1", "setuptools<82")  # for the tests of CUDA, and a trainer; torch 2.11 takes no newer ones
PLATFORMS = [f"manylinux_2_{minor}_x86_64" for minor in (17, 24, 26, 27, 28, 31, 34)] + ["manylinux2014_x86_64"]
_LIBRARY = re.compile(r"bitsandbytes/libbitsandbytes_(?:cuda(\d+)|rocm\d+|xpu\d+)\.so")


def wanted() -> list[Requirement]:
    """Return what the check needs of pyproject.toml: to install the checkout, to apply a study, to train."""
    stated = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    project = stated["project"]
    texts = [*stated["build-system"]["requires"], *project["dependencies"], *project["optional-dependencies"]["train"]]
    found: dict[str, Requirement] = {}
    for one in map(Requirement, [*texts, *MORE]):
        name = canonicalize_name(one.name)
        if name not in STAYS | THERE:
            found.setdefault(name, one).specifier &= one.specifier
    return [*found.values()]


def closure(python: str) -> list[str]:
    """Return all that is needed: `name==version` as it is installed here, or what is asked for where that is older.

    :param python: the version that will run it, by which requirements are chosen
    :raises SystemExit: when something is not installed here
    """
    where = {"python_version": python, "python_full_version": f"{python}.0", "sys_platform": "linux", "extra": ""}
    where |= {"platform_machine": "x86_64", "platform_system": "Linux", "implementation_name": "cpython"}
    found: dict[str, str] = {}
    waiting = wanted()
    stated = {canonicalize_name(one.name): one.specifier for one in waiting}
    while waiting:
        name = canonicalize_name(waiting.pop().name)
        if name in found or name in THERE:
            continue
        try:
            here = version(name)
        except PackageNotFoundError:
            raise SystemExit(f'{name} is not installed here: pip install -e ".[train,dev]"') from None
        fits = name not in stated or stated[name].contains(here, prereleases=True)
        found[name] = f"{name}=={here}" if fits else f"{name}{stated[name]}"
        needs = [Requirement(text) for text in distribution(name).requires or []]
        waiting += [one for one in needs if one.marker is None or one.marker.evaluate(where)]
    return sorted(found.values())


def download(names: list[str], python: str, folder: Path) -> None:
    """Download a wheel of each from the package index that pip is set up with."""
    platforms = [word for name in PLATFORMS for word in ("--platform", name)]
    options = ["--no-deps", "--only-binary=:all:", "--python-version", python, "--implementation", "cp", *platforms]
    command = [sys.executable, "-m", "pip", "download", "--quiet", *options, "--dest", str(folder), *names]
    done = subprocess.run(command)
    if done.returncode:
        raise SystemExit("pip could not download them all; it says above which.")


def thin(folder: Path, cuda: list[str]) -> None:
    """Leave out of bitsandbytes the libraries for other devices, as if its wheel had been built for these alone."""
    for wheel in folder.glob("bitsandbytes-*.whl"):
        new = wheel.with_suffix(".new")
        with zipfile.ZipFile(wheel) as whole, zipfile.ZipFile(new, "w", zipfile.ZIP_DEFLATED) as kept:
            for item in whole.infolist():
                if _other(item.filename, cuda):
                    continue
                content = whole.read(item)
                if item.filename.endswith(".dist-info/RECORD"):
                    lines = content.decode().splitlines(keepends=True)
                    content = "".join(line for line in lines if not _other(line.partition(",")[0], cuda)).encode()
                kept.writestr(item, content, zipfile.ZIP_DEFLATED)
        new.replace(wheel)


def _other(name: str, cuda: list[str]) -> bool:
    library = _LIBRARY.fullmatch(name)
    return library is not None and library[1] not in cuda


def checkout_bytes() -> int:
    """Return the size of the files that travel with the wheels: what git tracks."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    files = [ROOT / name for name in listed.split("\0") if name]
    return sum(file.stat().st_size for file in files if file.is_file())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dry-run", action="store_true", help="list them with their sizes, and keep none")
    parser.add_argument("--requirements", action="store_true", help="print what gpu.sh installs where it is missing")
    parser.add_argument("--to", type=Path, default=ROOT / ".wheels", help="the folder [default: .wheels]")
    parser.add_argument("--python", default="3.12", help="of the machine with the GPU [default: 3.12]")
    parser.add_argument("--cuda", nargs="+", default=["128", "130"], help="of its torch [default: 128 130]")
    asked = parser.parse_args()
    if asked.requirements:
        print(*wanted(), sep="\n")
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) if asked.dry_run else asked.to
        folder.mkdir(exist_ok=True, parents=True)
        for old in folder.glob("*.whl"):
            old.unlink()
        download(closure(asked.python), asked.python, folder)
        thin(folder, asked.cuda)
        wheels = sorted(folder.glob("*.whl"), key=lambda wheel: -wheel.stat().st_size)
        sizes = {wheel.name: wheel.stat().st_size for wheel in wheels}
    for name, size in sizes.items():
        print(f"{size / 2**20:8.2f} MiB  {name}")
    total, checkout = sum(sizes.values()) / 2**20, checkout_bytes() / 2**20
    print(f"{total:8.2f} MiB  in {len(sizes)} wheels, and {checkout:.2f} MiB of checkout: {total + checkout:.2f} MiB")
    if total + checkout > LIMIT:
        raise SystemExit(f"That is more than {LIMIT} MiB.")


if __name__ == "__main__":
    main()
