#!/bin/sh
# The install steps of the images, which the tests run as well:
#     install.sh packages LOCK PREFIX
#     install.sh project PREFIX
# Packages come first and by themselves, so that a change of the code does not fetch them again.
set -eu
python=${PYTHON:-python3}

# uv lives beside the prefix, which then holds what the lock names and nothing else.
packages() {
    lock=$1 prefix=$2
    "$python" -m venv --without-pip "$prefix"
    "$python" -m venv "$prefix.uv"
    "$prefix.uv/bin/python" -m pip install --quiet --no-cache-dir --disable-pip-version-check --require-hashes -r locks/uv.txt
    "$prefix.uv/bin/uv" pip sync --quiet --compile-bytecode --python "$prefix/bin/python" --require-hashes "$lock"
}

project() {
    prefix=$1
    "$prefix.uv/bin/uv" pip install --quiet --compile-bytecode --python "$prefix/bin/python" --no-deps --no-build-isolation .
}

"$@"
