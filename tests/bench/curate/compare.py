# curate beside plain Python and others' libraries: the same work by turns, and equal results.
"""Usage: python tests/bench/curate/compare.py POOL_FOLDER [--rows NAME,...] [--rounds N] ...

POOL_FOLDER is what the example synthetic_pool made. Per row of the table: rounds of ours, then the
peer's, each on one thread; CPU time by getrusage (ours as the scheduler counts it), the median of
the rounds' ratios and their range. A difference in what was found is printed and ends with exit
code 1. First:

    cargo build --release -p curate --bins --examples
    target/release/examples/synthetic_pool runs/bench/pool
    pip install -r tests/bench/curate/requirements.txt
"""

import argparse
import collections
import json
import os
import pathlib
import re
import statistics
import subprocess
import sys
import tempfile
import time

import pyarrow.parquet as pq

import reference

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[2]
ONE_THREAD = os.environ | {"RAYON_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
# The traces whose tokens are counted: so many bytes, spread over the pool.
TOKENS_BYTES = 20e6
# The Jaccard index from which two questions are near-duplicates.
ALIKE = 0.7


class Side:
    """A process that runs single stages on demand: `stages` or peers.py."""

    def __init__(self, *command):
        pipes = dict(stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        quiet = dict(stderr=subprocess.DEVNULL) if "peers.py" in str(command) else {}
        self.process = subprocess.Popen(command, env=ONE_THREAD, **pipes, **quiet)

    def ask(self, stage):
        """CPU seconds and what was found."""
        self.process.stdin.write(stage + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            sys.exit(f"{stage}: {self.process.args[0]} stopped with {self.process.wait()}")
        reply = json.loads(line)
        return reply["cpu_seconds"], reply["found"]

    def close(self):
        self.process.stdin.close()
        self.process.wait()


class Table:
    """The lines, and whether anything differed."""

    def __init__(self):
        self.failed = False

    def line(self, name, unit, items, ours, peers, peer, verdict, target=None):
        """One line: seconds of every round for both sides, and what comparing results said."""
        ratios = [theirs / own for own, theirs in zip(ours, peers)]
        ratio = statistics.median(ratios)
        per = lambda seconds: f"{statistics.median(seconds) / items * 1e6:.4g} us/{unit}"
        goal = f", target {target}: {'met' if ratio >= target else 'MISSED'}" if target else ""
        print(
            f"{name} | ours {per(ours)} | {peer} {per(peers)} | {ratio:.3g} times "
            f"({min(ratios):.3g} to {max(ratios):.3g}, {len(ratios)} rounds){goal} | {verdict}",
            flush=True,
        )

    def limit(self, name, measured, limits, verdict):
        """One line of what has no peer: what was measured against its limit."""
        parts = [f"{what} {value:.4g} {unit}" for what, (value, unit) in measured.items()]
        for what, most in limits.items():
            state = "met" if measured[what][0] <= most else "MISSED"
            parts.append(f"{what} at most {most:g}: {state}")
        print(f"{name} | {', '.join(parts)} | {verdict}", flush=True)

    def check(self, good, text):
        self.failed |= not good
        return text if good else f"DIFFERENT: {text}"

    def same(self, ours, theirs, what):
        if ours == theirs:
            return f"equal: {len(ours)} {what}"
        both = set(map(str, ours)) ^ set(map(str, theirs))
        return self.check(False, f"{len(ours)} and {len(theirs)} {what}, e.g. {sorted(both)[:5]}")


class Bench:
    def __init__(self, options):
        self.options, self.table = options, Table()
        self.pool, self.held_out = options.pool / "pool.parquet", options.pool / "held_out.jsonl"
        self.rows = pq.ParquetFile(self.pool).metadata.num_rows
        self.scratch = options.scratch
        self.scratch.mkdir(parents=True, exist_ok=True)
        self.release = options.release
        self.sides = None

    def both(self):
        """Our process and the peers', started once."""
        if not self.sides:
            files = [str(self.held_out), str(self.pool)]
            ours = Side(str(self.release / "examples/stages"), *files)
            self.sides = ours, Side(sys.executable, str(HERE / "peers.py"), *files)
        return self.sides

    def alternate(self, ours, theirs, rounds):
        """Seconds of both sides over the rounds, and what they found in the last."""
        own, peer = self.both()
        seconds, found = ([], []), {}
        for _ in range(rounds):
            for side, stage, to in [(own, ours, seconds[0]), (peer, theirs, seconds[1])]:
                spent, found[side] = side.ask(stage)
                to.append(spent)
        return *seconds, found[own], found[peer]

    def decontaminate(self):
        ours, peer, own, found = self.alternate(*["decontaminate"] * 2, self.options.rounds)
        verdict = self.table.same(own, found, "rows dropped")
        name = "8-gram decontamination"
        self.table.line(name, "row", self.rows, ours, peer, "plain Python", verdict, 200)

    def patterns(self):
        ours, peer, own, found = self.alternate(*["patterns"] * 2, self.options.rounds)
        verdict = self.table.same(own, found, "rows dropped")
        self.table.line("format rules", "row", self.rows, ours, peer, "plain Python", verdict, 500)

    def datatrove(self):
        rounds = min(3, self.options.rounds)
        ours, peer, own, found = self.alternate("decontaminate", "datatrove", rounds)
        # Eight words are at least eight of its tokens, so it must find all that we find.
        text = f"of {len(own)} rows that share 8 words it finds all, in its tokens {len(found)}"
        verdict = self.table.check(set(own) <= set(found), text)
        name = "8-gram decontamination"
        self.table.line(name, "row", self.rows, ours, peer, "datatrove", verdict)

    def sketches(self):
        """MinHash signatures of 128 values alone; `near_duplicates` says what they find."""
        stages = "sketches", "rensa_sketches"
        ours, peer, own, found = self.alternate(*stages, self.options.rounds)
        name, peers = "MinHash signatures, from texts", "rensa, from ready shingles"
        verdict = self.table.same(own, found, f"count, of {own[0]} rows")
        self.table.line(name, "row", self.rows, ours, peer, peers, verdict, 1)

    def near_duplicates(self):
        """Against rensa and datasketch, at a Jaccard index of 0.7 of 3-word shingles.

        Every library hashes in its own way, so what they find is compared with the exact answer.
        """
        _, truth = self.both()[1].ask(f"near_duplicates {ALIKE}")
        few = min(2, self.options.rounds)
        for stage, peer, rounds in [
            ("rensa", "rensa, from texts", self.options.rounds),
            ("rensa_ready", "rensa, from ready shingles", self.options.rounds),
            ("datasketch", "datasketch, from ready shingles", few),
        ]:
            stages = f"near-duplicates {ALIKE}", f"{stage} {ALIKE}"
            ours, theirs, own, found = self.alternate(*stages, rounds)
            missed, wrong = set(truth) - set(own), set(own) - set(truth)
            caught = len(set(truth) & set(found))
            text = f"of {len(truth)} near-duplicates ours finds all but {len(missed)}, and"
            text += f" {len(wrong)} others; {stage} {caught} and {len(found) - caught} others"
            verdict = self.table.check(len(missed) + len(wrong) <= 0.02 * len(truth), text)
            name, target = "near-duplicates, from texts", 1 if "rensa" in stage else None
            self.table.line(name, "row", self.rows, ours, theirs, peer, verdict, target)

    def tokens(self):
        tokenizer = self.options.tokenizer
        if not tokenizer:
            print("tokens | skipped: name a tokenizer.json of Qwen2.5 with --tokenizer")
            return
        with tempfile.TemporaryDirectory() as folder:
            texts = pathlib.Path(folder) / "texts.jsonl"
            size = self.write_traces(texts)
            stage = f"tokens {tokenizer} {texts}"
            own, theirs = self.both()
            warm = self.alternate(stage, stage, self.options.rounds)
            cold = []
            for _ in range(self.options.rounds):
                fresh = Side(str(self.release / "examples/stages"), str(self.held_out))
                cold.append(fresh.ask(stage)[0])
                fresh.close()
        ours, peer, own, found = warm
        verdict = self.table.same(own, found, "token counts")
        for how, seconds in [("fresh process", cold), ("again", ours)]:
            name = f"tokens of {len(own)} traces, {how}"
            line = (name, "kB", size / 1e3, seconds, peer, "HF tokenizers", verdict, 30)
            self.table.line(*line)

    def write_traces(self, path):
        """Every n-th trace of the pool, TOKENS_BYTES in all, as JSON lines; returns their bytes."""
        step = max(1, int(self.rows * 16_000 / TOKENS_BYTES))
        size, number = 0, 0
        with open(path, "w", encoding="utf-8") as out:
            columns = ["thinking_trajectories"]
            for batch in pq.ParquetFile(self.pool).iter_batches(batch_size=256, columns=columns):
                for traces in batch[columns[0]].to_pylist():
                    number += 1
                    if traces and number % step == 0:
                        size += len(traces[0].encode())
                        out.write(json.dumps(traces[0]) + "\n")
        return size

    def run_curate(self, *arguments):
        """Wall and CPU seconds and peak memory in MiB of one command, with all cores."""
        begin = time.monotonic()
        process = subprocess.Popen(
            [str(self.release / "curate"), *map(str, arguments)],
            cwd=ROOT,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        said = process.stderr.read()
        _, status, used = os.wait4(process.pid, 0)
        if status:
            sys.exit(f"curate {' '.join(map(str, arguments))}: {said}")
        cpu = used.ru_utime + used.ru_stime
        return time.monotonic() - begin, cpu, used.ru_maxrss / 1024

    def run_funnel(self, pool, out):
        files = f"pool.files=['{pool / 'pool.parquet'}']"
        held_out = f"{{name='held out', from.files=['{pool / 'held_out.jsonl'}'], column='question'}}"
        return self.run_curate(
            "run", "configs/curate/s1k.toml", "--overwrite",
            "--set", f"output={out}", "--set", files, "--set", "pool.features=[]",
            "--set", f"decontaminate.benchmarks=[{held_out}]",
        )  # fmt: skip

    def funnel(self):
        """The whole funnel against reference.py: every stage drops the same rows, and the rows
        selected are those that the reference selects by curate's draws."""
        out, rounds = self.scratch / "run", min(3, self.options.rounds)
        ours, peer = [], []
        for _ in range(rounds):
            ours.append(self.run_funnel(self.options.pool, out))
            begin = os.times()
            command = [sys.executable, HERE / "reference.py", self.held_out, self.pool]
            text = subprocess.run(command, env=ONE_THREAD, check=True, capture_output=True).stdout
            spent = os.times()
            peer.append(spent[2] + spent[3] - begin[2] - begin[3])
        verdict = self.table.same(stages_of(out), stages_in(text.decode()), "stages")
        cpu = [cpu for _, cpu, _ in ours]
        name = "funnel, pool to s1K with its report"
        self.table.line(name, "row", self.rows, cpu, peer, "plain Python", verdict)
        limits = {"wall": 15, "peak memory": 1024}
        self.table.limit("funnel, two cores", medians(ours), limits, f"{self.rows} rows")

    def select(self):
        """Eight criteria over one run: the ablations in configs/ and s1k.toml's own, some of them
        with a second seed; then `full`, which copies the whole pool.

        The last run's folder is selected from. Checked: s1k.toml's criterion selects what that run
        selected, and `longest` what sorting says; the draws themselves are checked by `funnel`.
        """
        run = self.scratch / "run"
        if not (run / "lineage.parquet").exists():
            self.run_funnel(self.options.pool, run)
        criteria = self.write_criteria()
        full = [path for path in criteria if path.stem == "full"]
        eight = [path for path in criteria if path.stem != "full"]
        rounds = min(3, self.options.rounds)
        runs = [self.run_curate("select", run, *eight, "--overwrite") for _ in range(rounds)]
        good = stages_of(run)["selected"] == stages_of(self.scratch / "s1k")["selected"]
        good &= longest(run) == stages_of(self.scratch / "longest")["selected"]
        verdict = self.table.check(good, "s1k.toml and longest select what they must")
        name = f"selection by {len(eight)} criteria"
        self.table.limit(name, medians(runs), {"wall": 10}, verdict)
        copy = [self.run_curate("select", run, *full, "--overwrite")]
        rows = pq.ParquetFile(self.scratch / "full/selected.parquet").metadata.num_rows
        verdict = self.table.check(rows > 0.9 * self.rows, f"{rows} rows with trace and text")
        self.table.limit("full, the whole pool written", medians(copy), {}, verdict)

    def write_criteria(self):
        """Copies of the configs with outputs of their own; their paths."""
        folder = ROOT / "configs/curate/ablations"
        texts = {file.stem: file.read_text() for file in sorted(folder.iterdir())}
        recipe = (ROOT / "configs/curate/s1k.toml").read_text()
        seed = re.search(r"^seed = .*$", recipe, re.M)[0]
        texts["s1k"] = f'output = ""\n{seed}\n{recipe[recipe.index("[selection]"):]}'
        texts |= {f"{name}-43": texts[name] for name in ["s1k", "random", "diverse"]}
        for name, text in texts.items():
            text = re.sub(r'^output = ".*"$', f'output = "{self.scratch / name}"', text, flags=re.M)
            if name.endswith("-43"):
                text = re.sub(r"^seed = \d+", "seed = 43", text, flags=re.M)
            (self.scratch / f"{name}.toml").write_text(text)
        return [self.scratch / f"{name}.toml" for name in texts]

    def large(self):
        """The same run over a pool ten times as large: memory must not grow with it."""
        pool = self.options.large
        if not pool:
            print("funnel, large pool | skipped: name its folder with --large")
            return
        run = self.run_funnel(pool, self.scratch / "large")
        books = stages_of(self.scratch / "large")
        rows = pq.ParquetFile(pool / "pool.parquet").metadata.num_rows
        good = sum(map(len, books.values())) == rows
        verdict = self.table.check(good, f"{rows} rows, each with one verdict")
        self.table.limit("funnel, large pool", medians([run]), {"peak memory": 1024}, verdict)

    ROWS = ["decontaminate", "patterns", "sketches", "near_duplicates", "datatrove", "tokens"]
    ROWS += ["funnel", "select", "large"]


def medians(runs):
    """Of what run_curate measured, with units."""
    wall, cpu, memory = (statistics.median(of) for of in zip(*runs))
    return {"wall": (wall, "s"), "CPU": (cpu, "s"), "peak memory": (memory, "MiB")}


def longest(run, count=1000):
    """The rows with the longest traces among those of good quality."""
    columns = ["row", "stage", "gemini_length", "question_hash"]
    rows = pq.read_table(run / "lineage.parquet", columns=columns).to_pylist()
    good = [row for row in rows if row["stage"] in ("difficulty", "diversity", "selected")]
    good.sort(key=lambda row: (-row["gemini_length"], row["question_hash"]))
    return sorted(row["row"] for row in good[:count])


def stages_of(out):
    """The rows, from 1, of every stage in a run's lineage."""
    table = pq.read_table(out / "lineage.parquet", columns=["row", "stage"])
    stages = collections.defaultdict(list)
    for row, stage in zip(*(table[name].to_pylist() for name in ["row", "stage"])):
        stages[stage].append(row)
    return dict(stages)


def stages_in(text):
    """The same out of what reference.py prints."""
    stages = [json.loads(line) for line in text.splitlines()]
    return {stage["stage"]: stage["rows"] for stage in stages if stage["rows"]}


def main():
    parser = argparse.ArgumentParser()
    path = lambda text: pathlib.Path(text).resolve()
    parser.add_argument("pool", type=path)
    parser.add_argument("--large", type=path)
    parser.add_argument("--rows", default=",".join(Bench.ROWS))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--tokenizer", type=path)
    parser.add_argument("--release", type=path, default=ROOT / "target/release")
    parser.add_argument("--scratch", type=path, default=ROOT / "runs/bench")
    bench = Bench(parser.parse_args())
    for name in bench.options.rows.split(","):
        getattr(bench, name)()
    sys.exit(bench.table.failed)


if __name__ == "__main__":
    main()
