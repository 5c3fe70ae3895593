# Training steps beside PyTorch and transformers: the same work by turns, and equal losses.
"""Usage: python tests/bench/train/compare.py [--vocabularies 8192,151936] [--rounds 5] ...

A Qwen2 of hidden size 512, 12 layers, MLP 2816, 8 and 2 heads, and a batch of 8 sequences: the
mid-quantiles of a lognormal through s1K's two published facts (mean 5.5K tokens, 74% above 4,096),
divided by 16. In each round every side runs as a process of its own: a warm-up step, then the step
that is measured, by the process's CPU time. Printed are medians over the rounds, the median of the
rounds' ratios with their range, and the largest resident memory of each process. Losses of both
steps must agree; if not, the exit code is 1. With --symbols also where our CPU time goes, by perf.

    cargo build --release --workspace --example train_bench
    pip install -r tests/oracle/requirements.txt
"""

import argparse
import json
import math
import os
import pathlib
import random
import statistics
import subprocess
import sys

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[2]
ONE_THREAD = os.environ | {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
TICK = 1 / os.sysconf("SC_CLK_TCK")
# Name: mode and optimizer of peers.py, and the ratio that is aimed at.
PEERS = {
    "padded, AdamW's default": ("padded", "default", 1.7),
    "padded, fused AdamW": ("padded", "fused", 1.7),
    "padded and checkpointed, fused AdamW": ("checkpointed", "fused", None),
    "one by one, fused AdamW": ("alone", "fused", 1.15),
}
# Losses of the two sides may differ by this, relative.
APART = 1e-4


def lengths():
    """Of 8 sequences: sigma and median of the lognormal solve the two facts."""
    above = statistics.NormalDist().inv_cdf(0.74)
    sigma = -above + math.sqrt(above**2 + 2 * math.log(5500 / 4096))
    median = 4096 * math.exp(above * sigma) / 16
    quantiles = [statistics.NormalDist().inv_cdf((2 * i + 1) / 16) for i in range(8)]
    return [round(median * math.exp(sigma * z)) for z in quantiles]


class Side:
    """A process that runs steps on demand, and what its two steps cost and gave."""

    def __init__(self, command):
        pipes = dict(stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        process = subprocess.Popen(command, env=ONE_THREAD, stderr=subprocess.DEVNULL, **pipes)
        place = pathlib.Path(f"/proc/{process.pid}")

        def seconds():
            fields = (place / "stat").read_text().rsplit(") ", 1)[1].split()
            return (int(fields[11]) + int(fields[12])) * TICK

        def ask(what):
            process.stdin.write(what + "\n")
            process.stdin.flush()
            line = process.stdout.readline()
            if not line:
                sys.exit(f"{command} stopped with {process.wait()}")
            return json.loads(line)

        warm = ask("warm")
        before = seconds()
        found = ask("step")
        self.seconds = seconds() - before
        status = (place / "status").read_text()
        self.peak = int(status.split("VmHWM:")[1].split()[0]) / 2**20  # KiB to GiB
        self.losses = warm["loss"], found["loss"]
        process.stdin.close()
        process.wait()


class Bench:
    def __init__(self, options):
        self.options, self.failed = options, False
        self.tokens = sum(lengths())
        options.scratch.mkdir(parents=True, exist_ok=True)

    def model(self, vocabulary):
        """The folder of the random model, and the file of the batch."""
        folder = self.options.scratch / f"qwen2-v{vocabulary}"
        if not (folder / "model.safetensors").exists():
            make = [sys.executable, HERE / "peers.py", "make", str(vocabulary), folder]
            subprocess.run(make, check=True, stderr=subprocess.DEVNULL)
        batch = self.options.scratch / f"batch-v{vocabulary}.json"
        draw = random.Random(0)
        ids = [[draw.randrange(vocabulary) for _ in range(n)] for n in lengths()]
        batch.write_text(json.dumps({"ids": ids, "trained_from": 12}))
        return folder, batch

    def run(self, vocabulary):
        files = [str(path) for path in self.model(vocabulary)]
        commands = {"ours": [str(self.options.program), *files, self.options.recompute]}
        chosen = {name: peer for name, peer in PEERS.items()
                  if peer[0] in self.options.peers.split(",")}
        for name, (mode, optimizer, _) in chosen.items():
            commands[name] = [sys.executable, str(HERE / "peers.py"), mode, optimizer, *files]
        runs = {name: [] for name in commands}
        for _ in range(self.options.rounds):
            for name, command in commands.items():
                runs[name].append(Side(command))
        self.table(vocabulary, runs, chosen)

    def table(self, vocabulary, runs, chosen):
        print(f"\nvocabulary {vocabulary}: {self.tokens} tokens, {len(runs['ours'])} rounds\n")
        print("| side | CPU us a token | times ours (range) | aim | peak memory | times ours |")
        print("|---|---:|---:|---:|---:|---:|", flush=True)
        ours = runs["ours"]
        peak = max(run.peak for run in ours)
        for name, side in runs.items():
            ratios = [theirs.seconds / own.seconds for own, theirs in zip(ours, side)]
            each = statistics.median(run.seconds for run in side) / self.tokens * 1e6
            most = max(run.peak for run in side)
            times = f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
            aim = chosen.get(name, (0, 0, None))[2] or ""
            print(f"| {name} | {each:.0f} | {times} | {aim} | {most:.2f} GiB | {most / peak:.2f} |")
            for own, theirs in zip(ours, side):
                for a, b in zip(own.losses, theirs.losses):
                    if abs(a - b) > APART * abs(b):
                        self.failed = True
                        print(f"DIFFERENT: {name}: loss {b}, ours {a}")
        print(f"\nlosses {ours[0].losses[0]:.6f} and {ours[0].losses[1]:.6f} on all sides, at most "
              f"{APART:g} apart: {'no' if self.failed else 'yes'}", flush=True)

    def symbols(self, vocabulary):
        """Shares of our step's CPU time by library and symbol; loading and warming up excluded
        by what they do not do."""
        files = [str(path) for path in self.model(vocabulary)]
        data = self.options.scratch / "perf.data"
        command = ["perf", "record", "-F", "199", "-o", str(data), "--",
                   str(self.options.program), *files, self.options.recompute]
        text = "warm\n" + "step\n" * 2
        quiet = dict(stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        subprocess.run(command, input=text, text=True, env=ONE_THREAD, check=True, **quiet)
        for sort in ("dso", "dso,symbol"):
            report = ["perf", "report", "-i", str(data), "--stdio", "--no-children", "--sort", sort]
            out = subprocess.run(report, capture_output=True, text=True, check=True).stdout
            lines = [line for line in out.splitlines() if line and not line.startswith("#")]
            print("\n".join(lines[:25]), "\n", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--vocabularies", default="8192,151936")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--peers", default="padded,checkpointed,alone")
    parser.add_argument("--recompute", default="4.6", help="all, auto, none or a limit in GiB")
    parser.add_argument("--symbols", action="store_true")
    parser.add_argument("--program", type=pathlib.Path,
                        default=ROOT / "target/release/examples/train_bench")
    parser.add_argument("--scratch", type=pathlib.Path, default=ROOT / "runs/bench/train")
    bench = Bench(parser.parse_args())
    for vocabulary in map(int, bench.options.vocabularies.split(",")):
        if bench.options.symbols:
            bench.symbols(vocabulary)
        else:
            bench.run(vocabulary)
    sys.exit(bench.failed)


if __name__ == "__main__":
    main()
