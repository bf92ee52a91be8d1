#!/bin/sh
# Make .venv from a lock file: `environment.sh base` or `environment.sh full`.
# A stamp inside the environment holds the checksum of what it was made from, so a current one costs nothing,
# and `base` is content with a current full one.
set -eu
kind=$1
python=${PYTHON:-python3}
venv=.venv

say() { echo "$*" >&2; exit 1; }

command -v "$python" >/dev/null 2>&1 || say "No $python on the PATH: install Python 3.11 or newer, or name one with PYTHON=/path/to/python3."
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || say "$("$python" --version) is too old: Python 3.11 or newer is needed; name one with PYTHON=/path/to/python3."
"$python" -c 'import venv, ensurepip' 2>/dev/null || say "This Python has no venv module: install it (Debian and Ubuntu: apt-get install python3-venv)."

# What the environment follows from: the locks, the interpreter, and the commands that the package declares.
stamp_of() { echo "$1 $({ "$python" --version; cat "locks/$1.txt" locks/uv.txt; sed -n '/^\[project.scripts\]/,/^$/p' pyproject.toml; } | cksum)"; }
stamp=$venv/.made-from
made_from=$(cat "$stamp" 2>/dev/null || true)

# A fuller environment than asked for is kept, and kept full.
case "$made_from" in full\ *) kind=full ;; esac
[ -x "$venv/bin/python" ] && [ "$made_from" = "$(stamp_of "$kind")" ] && exit 0

echo "Making $venv ($kind) ..." >&2
[ -x "$venv/bin/python" ] && "$venv/bin/python" -c '' 2>/dev/null || "$python" -m venv --clear "$venv"
rm -f "$stamp"
"$venv/bin/python" -m pip install --quiet --disable-pip-version-check --require-hashes -r locks/uv.txt
"$venv/bin/uv" pip sync --quiet --compile-bytecode --python "$venv/bin/python" --require-hashes "locks/$kind.txt" locks/uv.txt
"$venv/bin/uv" pip install --quiet --python "$venv/bin/python" --no-deps --no-build-isolation --editable .
stamp_of "$kind" >"$stamp"
