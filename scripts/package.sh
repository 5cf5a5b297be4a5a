#!/bin/sh
# Build what is handed out: the wheel, the source distribution and the bill of materials (CycloneDX), into dist/ or the folder given.
#
# The bill lists the packages that the container image installs, each with its version and hashes, as the lock names them. It lies
# beside the wheel, and in it under .dist-info/sboms/ (PEP 770). The same sources give the same bytes (SOURCE_DATE_EPOCH: the last commit).
set -eu
target=$(cd "$(dirname "$0")/.." && pwd)/dist
if [ $# -gt 0 ]; then
    mkdir -p "$1"
    target=$(cd "$1" && pwd)
fi
cd "$(dirname "$0")/.."
scripts/environment.sh build
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct 2>/dev/null || echo 1700000000)}
export SOURCE_DATE_EPOCH
mkdir -p build/sbom "$target"
# Whoever builds a wheel by other means, from a lock that is another one by then, gets no bill rather than this one.
trap 'rm -f build/sbom/conclave.cdx.json' EXIT
.build-venv/bin/cyclonedx-py requirements requirements-image.lock --pyproject pyproject.toml --mc-type application \
    --spec-version 1.6 --output-reproducible --output-file build/sbom/conclave.cdx.json
.build-venv/bin/python -m hatchling build --target wheel --target sdist --directory "$target" >&2
cp build/sbom/conclave.cdx.json "$target/"
ls "$target"
