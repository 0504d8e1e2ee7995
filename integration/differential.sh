#!/bin/sh
# Runs generated cases through KServe's own package and through this program, and compares.
# The package comes from PyPI into a virtual environment in the cache, once.
set -eu
cd "$(dirname "$0")/.."
version=0.21.0
# What KServe does with an empty ca_bundle depends on it.
boto3=1.44.5
cache="${XDG_CACHE_HOME:-$HOME/.cache}/storage-initializer/kserve-storage-$version-boto3-$boto3"
if [ ! -x "$cache/bin/python" ] || ! "$cache/bin/python" -c 'import kserve_storage, boto3' 2>/dev/null; then
    rm -rf "$cache"
    python3 -m venv "$cache"
    "$cache/bin/pip" install --quiet --disable-pip-version-check "kserve-storage==$version" "boto3==$boto3"
fi
STORAGE_INITIALIZER_KSERVE_PYTHON="$cache/bin/python" cargo test --workspace --test differential -- "$@"
