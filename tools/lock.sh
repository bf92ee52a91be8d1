#!/bin/sh
# Resolve the lock files: exact versions with hashes, no index and no file address in them.
# The full set is resolved first and the others are held to it, so that all are one resolution.
set -eu
python=${PYTHON:-python3}
uv=$(mktemp -d)
trap 'rm -rf "$uv"' EXIT
"$python" -m venv "$uv"
"$uv/bin/pip" install --quiet --disable-pip-version-check uv
lock() {
    UV_CUSTOM_COMPILE_COMMAND="make lock" "$uv/bin/uv" pip compile --quiet --upgrade --universal --python-version 3.11 \
        --generate-hashes --no-emit-index-url --no-emit-find-links --no-annotate "$@"
}
mkdir -p locks
lock pyproject.toml --all-extras --group dev --group build -o locks/full.txt
lock pyproject.toml --group build -c locks/full.txt -o locks/base.txt
lock pyproject.toml --group build --extra s3 --extra flows --extra dashboard -c locks/full.txt -o locks/prepare.txt
lock pyproject.toml --group build --extra s3 --extra flows --extra dashboard --extra gpu -c locks/full.txt -o locks/prepare-gpu.txt
lock pyproject.toml --group build --extra s3 --extra flows --extra train -c locks/full.txt -o locks/train.txt
echo uv | lock - -o locks/uv.txt
lock benchmarks/peers/peers.in -o benchmarks/peers/peers.txt
