# The project's commands; `just` alone lists them.

set shell := ["bash", "-euo", "pipefail", "-c"]

# The binaries find .libtorch/ from target/, where cargo puts them by default.
unexport CARGO_TARGET_DIR

# An optional folder of real data beside the checkout.
export S1_SHARED := env("S1_SHARED", justfile_directory() / "../shared")

_list:
    @just --list --unsorted

# find or prepare libtorch in .libtorch/: `just setup cpu`, `just setup cuda`, or what is there
setup kind="": _python
    @python3 train/c10d/libtorch.py {{ kind }}

_python:
    @command -v python3 > /dev/null || { echo 'error: python3 was not found: `sudo apt-get install python3 python3-pip`' >&2; exit 1; }

# what a build needs and what this machine has
doctor: _python
    @python3 train/c10d/doctor.py

# the whole chain on the bundled questions: curate, train on two ranks, evaluate three budgets
demo: build
    target/debug/curate run configs/demo/curate.toml --overwrite
    target/debug/train run configs/demo/train.toml --ranks 2 --overwrite
    target/debug/infer eval configs/demo/infer.toml --overwrite
    @printf '\n'
    @tail -n +1 runs/demo/curate/summary.txt runs/demo/train/summary.txt runs/demo/infer/summary.txt
    @printf '\nEverything is in runs/demo/{curate,train,infer}; each manifest.json says how it was made.\n'

# everything that is built for the demo and the tests
build: setup
    cargo build --workspace

# the tests of all crates
test: build
    cargo test --workspace

# formatting and clippy, as strict as .ci/run
lint: setup
    cargo fmt --all --check
    cargo clippy --workspace --all-targets -- -D warnings

# the tests again, with Python's libraries as oracles (in .venv, some GB)
oracle: build
    [ -x .venv/bin/python ] || python3 -m venv .venv
    .venv/bin/python -m pip install --quiet --requirement tests/oracle/requirements.txt
    S1_ORACLE=1 S1_ORACLE_PYTHON="$PWD/.venv/bin/python" cargo test --workspace -- --nocapture

# the chain's curation on real questions, where the folder of real data is there
real-data: build
    @[ -d "$S1_SHARED/data" ] || { echo "error: no folder $S1_SHARED/data: let S1_SHARED name the folder of real data" >&2; exit 1; }
    target/debug/curate run configs/real/curate.toml --overwrite

# the model's numbers on real Qwen2.5 weights, made by the folder of real data (0.5 GB to fetch)
real-model: build
    [ -d runs/models ] || python3 "$S1_SHARED/models/get_model.py" --out runs/models
    S1_MODELS="$PWD/runs/models" cargo test -p tests real_model -- --nocapture

# what runs before a change is accepted
ci:
    .ci/run
