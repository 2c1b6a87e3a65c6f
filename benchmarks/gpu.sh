#!/usr/bin/env bash
# One check on a GPU, from a checkout and the wheels beside it, without a network (benchmarks/README.md).
#   benchmarks/gpu.sh [--cpu] [--wheels DIR] [--out FILE] [--only PART] [--seconds N]
# It uses the packages of the Python that it finds (PYTHON, else python3), torch first of all, and installs what that
# lacks from the wheels (made by benchmarks/wheels.py) into an environment of its own, which goes when it ends.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
python=${PYTHON:-python3}
wheels=$root/.wheels
options=()
while (($#)); do
  case $1 in
    --wheels) wheels=$2; shift 2 ;;
    *) options+=("$1"); shift ;;
  esac
done
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
started=$SECONDS

"$python" -m venv --without-pip --system-site-packages "$work/venv"
own=$work/venv/bin/python
# Where the Python that was found is itself one of an environment, that environment's packages are not the system's.
"$python" -c 'import sys; print(*(f"import site; site.addsitedir({p!r})" for p in sys.path if p.endswith("-packages")), sep="\n")' \
  > "$("$own" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/found.pth"

# No settings of pip's: what it installs is in the folder, or it is not installed.
unset PIP_FIND_LINKS PIP_INDEX_URL PIP_EXTRA_INDEX_URL PIP_CONSTRAINT
mkdir -p "$work/none"
[ -d "$wheels" ] || wheels=$work/none
install() { PIP_CONFIG_FILE=/dev/null "$own" -m pip --disable-pip-version-check install -q --no-index --no-compile --find-links "$wheels" "$@"; }
"$own" "$root/benchmarks/wheels.py" --requirements > "$work/requirements.txt"
if ! install -r "$work/requirements.txt"; then
  echo "What is here and the wheels do not go together by their own words; all wheels are installed as they are." >&2
  install --no-deps "$wheels"/*.whl || echo "Some packages are missing; the parts that need them will say so." >&2
fi
if ! (cd / && "$own" -P -c "import lorafile, pathlib, sys; sys.exit(pathlib.Path(lorafile.__file__).parents[1] != pathlib.Path('$root'))" 2> /dev/null); then
  install --no-deps --no-build-isolation -e "$root"
fi
echo "ready after $((SECONDS - started)) s"
"$own" -P "$root/benchmarks/gpu.py" ${options[@]+"${options[@]}"}
