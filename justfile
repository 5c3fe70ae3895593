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

# the whole chain on the bundled questions: curate, train on two ranks, evaluate five budgets
demo: build
    @target/debug/curate run configs/demo/curate.toml --overwrite > /dev/null
    @target/debug/train run configs/demo/train.toml --ranks 2 --overwrite > /dev/null
    @target/debug/infer eval configs/demo/infer.toml --overwrite > /dev/null
    @printf '\n== curate: which questions became examples\n\n' && cat runs/demo/curate/summary.txt
    @printf '\n== train: the model that learned them\n\n' && cat runs/demo/train/summary.txt
    @printf '\n== infer: what more thinking brings\n\n' && cat runs/demo/infer/summary.txt
    @printf '\nEverything is in runs/demo/{curate,train,infer}; README.md says what each holds.\n'

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

# the training recipe beside PyTorch and transformers, tiny and real weights (5 minutes, 9 GB of memory)
oracle-train: build
    [ -x .venv/bin/python ] || python3 -m venv .venv
    .venv/bin/python -m pip install --quiet --requirement tests/oracle/requirements.txt
    S1_ORACLE=1 S1_ORACLE_PYTHON="$PWD/.venv/bin/python" S1_MODELS="$PWD/runs/models" \
        cargo test --workspace --test s1 -- --nocapture --test-threads 1 recipe::

# token counts beside Hugging Face's tokenizer: a million random strings and all real texts (minutes)
tokens:
    S1_TOKEN_STRINGS=1000000 cargo test --release -p curate ids_equal -- --nocapture

# The folder of real data is ../shared, as in configs/real/*.toml, whatever S1_SHARED says.

# a small s1K from real questions: features, funnel, four ablations, report (under a minute)
real-curate: _real-features
    target/debug/curate run configs/real/curate.toml --overwrite --set output=runs/real/s1k \
        --set selection.target=1000 --set selection.uniform_until=700
    for criterion in random diverse longest paper-text; do \
        target/debug/curate select runs/real/s1k "configs/curate/ablations/$criterion.toml" \
            --set "output=runs/real/$criterion" --overwrite > /dev/null; done
    @printf '\nOpen runs/real/s1k/report.html; ask target/debug/curate why runs/real/s1k row:1\n'

_real-features: build
    @[ -d ../shared ] || { echo 'error: there is no folder of real data, ../shared' >&2; exit 1; }
    cargo build --workspace --example real_pool
    target/debug/examples/real_pool ../shared runs/real/pool.parquet
    target/debug/curate featurise configs/real/featurise.toml --overwrite

# the whole chain on real questions with a real small model (about 6 minutes on two cores)
real-data: _real-features
    [ -f runs/models/smollm2-135m-instruct-qwen2/config.json ] || \
        python3 ../shared/models/get_model.py smollm2-135m-instruct --as-qwen2 --suffix=-qwen2 \
        --out runs/models
    target/debug/curate run configs/real/curate.toml --overwrite
    target/debug/train run configs/real/train.toml --ranks 2 --overwrite
    target/debug/infer eval configs/real/infer.toml --overwrite

# accuracy against thinking: a real small model, forty questions, fifteen budgets (a quarter of an hour)
real-curve: build
    @[ -d runs/models/qwen2.5-coder-0.5b-instruct ] || { echo 'error: no model: `just real-model` fetches it' >&2; exit 1; }
    target/debug/infer curve configs/real/curve.toml --overwrite

# s1K from its sources: pool, traces and features, selection (days of models; edit the configs first)
s1k: build
    target/debug/curate collect configs/curate/collect.toml
    target/debug/curate featurise configs/curate/featurise.toml
    target/debug/curate run configs/curate/s1k.toml

# the model's numbers on real Qwen2.5 weights, made by the folder of real data (0.5 GB to fetch)
real-model: setup
    #!/usr/bin/env bash
    set -euo pipefail
    model=qwen2.5-coder-0.5b-instruct
    if [ ! -f "runs/models/$model/config.json" ]; then
        maker="$S1_SHARED/models/get_model.py"
        [ -f "$maker" ] || { echo "skipped: no runs/models/$model, and no $maker"; exit 0; }
        python3 "$maker" "$model" --out runs/models
    fi
    S1_MODELS="$PWD/runs/models" cargo test -p tests real_model -- --nocapture

# the engine on real weights: transformers' greedy ids, and the same ids in any batch (half an hour)
oracle-engine model="runs/models/qwen2.5-coder-0.5b-instruct" *flags="": setup
    @[ -f "{{ model }}/config.json" ] || { echo 'error: no {{ model }}: `just real-model` makes it' >&2; exit 1; }
    cargo build --release --workspace --bin infer
    [ -x .venv/bin/python ] || python3 -m venv .venv
    .venv/bin/python -m pip install --quiet --requirement tests/oracle/requirements.txt
    .venv/bin/python tests/oracle/engine_agrees.py target/release/infer "{{ model }}" \
        "$(ls "$S1_SHARED/data/eval/math500.jsonl" data/demo/eval.jsonl 2> /dev/null | head -1)" {{ flags }}

# decoding beside transformers, llama.cpp and OpenVINO GenAI, one thread each (half an hour)
bench-infer model="runs/models/qwen2.5-coder-0.5b-instruct" *flags="": setup
    @[ -f "{{ model }}/config.json" ] || { echo 'error: no {{ model }}: `just real-model` makes it' >&2; exit 1; }
    cargo build --release --workspace --bin infer
    [ -x runs/bench/venv-infer/bin/python ] || python3 -m venv runs/bench/venv-infer
    runs/bench/venv-infer/bin/python -m pip install --quiet \
        --requirement tests/bench/infer/requirements.txt
    runs/bench/venv-infer/bin/python tests/bench/infer/compare.py "{{ model }}" {{ flags }}

# the client of endpoints against 10,000 faulty replies and 100 kills (half a minute)
faults:
    S1_FULL=1 cargo test -p endpoint -- --nocapture faults:: kills::killed

# training under kills, full disks, preemptions, lost ranks and new world sizes: full figures
faults-train: build
    S1_FULL=1 cargo test --workspace --test faults -- --nocapture --test-threads 1

# evaluations under kills, and 200 names that would lead elsewhere: full figures (two minutes)
faults-infer: build
    S1_FULL=1 cargo test --workspace --test journal --test names -- --nocapture --test-threads 1

# the server under 10,000 requests of 64 clients that misbehave (minutes)
faults-serve: build
    S1_FULL=1 cargo test --workspace --test serve_faults -- --nocapture --test-threads 1

# the server with the official openai client, and lm-eval's local-completions (minutes)
oracle-serve model="runs/models/smollm2-135m-instruct-qwen2": build
    @[ -f "{{ model }}/config.json" ] || { echo 'error: no {{ model }}: `just real-data` makes it' >&2; exit 1; }
    [ -x .venv/bin/python ] || python3 -m venv .venv
    .venv/bin/python -m pip install --quiet --requirement tests/oracle/requirements.txt \
        --requirement tests/oracle/serve_agrees.txt
    .venv/bin/python tests/oracle/serve_agrees.py target/debug/infer "{{ model }}" --lm-eval

# what HTTP costs at 16 clients: the same requests by the engine alone (minutes)
bench-serve model="runs/models/smollm2-135m-instruct-qwen2": build
    cargo build --workspace --example serve_overhead
    target/debug/examples/serve_overhead configs/infer/serve.toml "{{ model }}"

# our grader beside Math-Verify: precision, recall and speed on real answers (about 3 minutes)
oracle-grading:
    @[ -d "$S1_SHARED" ] || { echo "error: there is no folder of real data, $S1_SHARED" >&2; exit 1; }
    cargo build --release -p grading
    [ -x .venv/bin/python ] || python3 -m venv .venv
    .venv/bin/python -m pip install --quiet --requirement tests/oracle/grades_agree.txt
    .venv/bin/python tests/oracle/grades_agree.py --sample 100 target/release/grade \
        "$S1_SHARED"/data/grading/*.jsonl "$S1_SHARED"/data/generations/*math500*.jsonl

# real answers, mutated: no panic, no asymmetry, none beyond 20 ms
fuzz-grading count="1000000":
    @[ -d "$S1_SHARED" ] || { echo "error: there is no folder of real data, $S1_SHARED" >&2; exit 1; }
    cargo run --release -p grading --example fuzz -- {{ count }} "$S1_SHARED"/data/grading/*.jsonl

# curation beside plain Python and others' libraries, full size (15 minutes, 4 GB in runs/bench)
bench-curate tokenizer="":
    cargo build --release -p curate --bins --examples
    [ -x runs/bench/venv/bin/python ] || python3 -m venv runs/bench/venv
    runs/bench/venv/bin/python -m pip install --quiet \
        --requirement tests/bench/curate/requirements.txt
    [ -f runs/bench/pool/held_out.jsonl ] || target/release/examples/synthetic_pool runs/bench/pool
    [ -f runs/bench/large/held_out.jsonl ] || \
        target/release/examples/synthetic_pool runs/bench/large 590290
    runs/bench/venv/bin/python tests/bench/curate/compare.py runs/bench/pool \
        --large runs/bench/large {{ if tokenizer == "" { "" } else { "--tokenizer " + tokenizer } }}

# training steps beside PyTorch and transformers (an hour on one quiet core, 16 GB of memory)
bench-train *options: setup
    cargo build --release --workspace --example train_bench
    [ -x .venv/bin/python ] || python3 -m venv .venv
    .venv/bin/python -m pip install --quiet --requirement tests/oracle/requirements.txt
    .venv/bin/python tests/bench/train/compare.py {{ options }}

# a GPU in one call, or what a CPU can do of it: numerics, speed and memory against its ceilings
gpu-check *parts: setup
    cargo build --release --workspace --example gpu_check
    target/release/examples/gpu_check {{ parts }}
    @python=.venv/bin/python; [ -x $python ] || python=python3; \
    if $python -c 'import torch, transformers' 2> /dev/null; then \
        $python tests/bench/gpu_check.py; \
    else echo '| G6 | PyTorch and transformers | skipped: they are not installed | |'; fi

# poisoned weights, moments and gradients in the long form, and 10,000 clean steps (some minutes)
poison:
    S1_FULL=1 cargo test --workspace --test poison -- --nocapture

# what runs before a change is accepted
ci:
    .ci/run
