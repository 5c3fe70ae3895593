# The engine beside transformers, llama.cpp and OpenVINO GenAI: tokens a CPU second, by turns.
"""Usage: python tests/bench/infer/compare.py MODEL [--peers NAME,...] [--batches 1,8,16] ...

MODEL is a Qwen2 folder with bf16 weights. In each round every side continues the same prompts (128
random ids each) greedily on one thread, first by 1 token and then by --tokens; the difference is
what the other tokens cost. Ours runs as a process for each, and says how much CPU time its passes
took; the peers keep their model. Printed are medians over the rounds, and the median of the rounds'
ratios with their range. Peers compute in 16 bits where they must (llama.cpp bf16, OpenVINO's GGUF
fp16), so that ids are compared with transformers in fp32 alone. Behind random ids many logits are
nearly tied, and one token that differs changes all after it: exit code 1 if more than a quarter of
the streams differ (tests/oracle/engine_agrees.py compares logit by logit, on real questions).

Three more rows: a random model of five million parameters beside transformers; what a "Wait" costs
at --context tokens, one pass over cached keys, beside reading the context again; and a curve of
five budgets beside its longest run.

    cargo build --release --workspace --bin infer
    pip install -r tests/bench/infer/requirements.txt
"""

import argparse
import json
import os
import pathlib
import random
import re
import shutil
import statistics
import subprocess
import sys

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[2]
ONE_THREAD = os.environ | {
    "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false",
}
CONFIG = """# One measurement of the engine benchmark.
seed = 1
[model]
device = "cpu"
dtype = "float32"
threads = 1
[engine]
cache_gib = 8.0
[prompts]
prompt = "ids"
chat = false
[generation]
temperature = 0.0
until = ["<|fim_pad|>"]
"""


class Ours:
    """`infer generate`, a process for each measurement."""

    def __init__(self, arguments, model, folder, slots, longest=1024):
        self.folder, self.infer = folder, ROOT / arguments.infer
        self.sets = {"model.path": model, "engine.slots": slots, "model.max_model_len": longest}
        (folder / "generate.toml").write_text(CONFIG)

    def write(self, prompts, tokens, **more):
        """CPU seconds of all passes, and what was written."""
        rows, output = self.folder / "prompts.jsonl", self.folder / "out"
        rows.write_text("".join(json.dumps({"ids": ids}) + "\n" for ids in prompts))
        sets = self.sets | more | {"output": output, "prompts.path": rows}
        sets["generation.max_gen_toks"] = tokens
        flags = [part for key, value in sets.items() for part in ("--set", f"{key}={value}")]
        command = [self.infer, "generate", self.folder / "generate.toml", "--overwrite", *flags]
        done = subprocess.run(command, capture_output=True, text=True, env=ONE_THREAD, cwd=ROOT)
        if done.returncode:
            sys.exit(done.stderr)
        cpu = re.search(r"CPU time: ([\d.]+) s .* ([\d.]+) s in the others", done.stdout)
        lines = open(output / "completions.jsonl", encoding="utf-8", newline="\n")
        return sum(map(float, cpu.groups())), [json.loads(line)["token_ids"] for line in lines]

    def close(self):
        pass


class Peer:
    """A process of peers.py with the model loaded."""

    def __init__(self, name, model, slots):
        pipes = dict(stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        command = [sys.executable, HERE / "peers.py", name, model, str(slots)]
        self.name = name
        self.process = subprocess.Popen(
            command, env=ONE_THREAD, stderr=subprocess.DEVNULL, **pipes
        )

    def write(self, prompts, tokens):
        self.process.stdin.write(json.dumps({"prompts": prompts, "tokens": tokens}) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            sys.exit(f"{self.name} stopped with {self.process.wait()}; run peers.py by hand")
        reply = json.loads(line)
        return reply["cpu_seconds"], reply["ids"]

    def close(self):
        self.process.stdin.close()
        self.process.wait()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=pathlib.Path)
    parser.add_argument("--infer", default="target/release/infer")
    parser.add_argument("--peers", default="transformers,llama.cpp,openvino")
    parser.add_argument("--batches", default="1,8,16")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--tokens", type=int, default=33)
    parser.add_argument("--context", type=int, default=7000)
    parser.add_argument("--rows", default="decode,small,wait,curve")
    arguments = parser.parse_args()
    folder = ROOT / "runs/bench/infer"
    folder.mkdir(parents=True, exist_ok=True)
    rows, equal = arguments.rows.split(","), True
    model, peers = arguments.model.resolve(), arguments.peers.split(",")
    batches = [int(batch) for batch in arguments.batches.split(",")]
    if "decode" in rows:
        for batch in batches:
            equal &= decode(arguments, model, peers, folder, batch, arguments.tokens)
    if "small" in rows:
        small = small_model(folder / "small")
        for batch in batches:
            # What a small model does in a moment is repeated until it can be measured.
            equal &= decode(arguments, small, ["transformers"], folder, batch, 321)
    if "wait" in rows:
        wait(arguments, model, folder)
    if "curve" in rows:
        curve(arguments, model, folder)
    sys.exit(0 if equal else 1)


def random_ids(count, length, seed, below=100_000):
    """Of a vocabulary's common part."""
    numbers = random.Random(seed)
    return [[numbers.randrange(below // 100, below) for _ in range(length)] for _ in range(count)]


def vocabulary(model):
    return min(100_000, json.loads((model / "config.json").read_text())["vocab_size"] // 2)


def small_model(folder):
    """Five million random weights in bf16 with the demo's tokenizer. Its control tokens have no
    weight, and are never the likeliest."""
    import torch
    from transformers import Qwen2Config, Qwen2ForCausalLM

    demo = ROOT / "data/demo/model"
    config = Qwen2Config.from_pretrained(demo)
    config.hidden_size, config.intermediate_size, config.num_hidden_layers = 256, 704, 7
    config.layer_types = ["full_attention"] * config.num_hidden_layers
    torch.manual_seed(1)
    model = Qwen2ForCausalLM(config)
    model.model.embed_tokens.weight.data[-4:] = 0
    model.bfloat16().save_pretrained(folder)
    for file in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(demo / file, folder)
    return folder


def weights_for(peer, model, folder):
    """The checkpoint as the peer reads it."""
    if peer == "transformers":
        return model
    file = folder / (f"{model.name}.{'f16' if peer == 'openvino' else 'bf16'}.gguf")
    if not file.exists():
        flags = ["--f16"] if peer == "openvino" else []
        subprocess.run([sys.executable, HERE / "gguf_file.py", model, file, *flags], check=True)
    return file


def decode(arguments, model, peers, folder, batch, tokens):
    """Tokens a CPU second of every side at this batch size; whether ids equal transformers'."""
    sides = {"ours": Ours(arguments, model, folder, batch)}
    for name in peers:
        sides[name] = Peer(name, weights_for(name, model, folder), batch)
    speeds = {name: [] for name in sides}
    written, new = {name: [] for name in sides}, batch * (tokens - 1)
    for round_ in range(arguments.rounds):
        prompts = random_ids(batch, 128, round_, vocabulary(model))
        for name, side in sides.items():
            first, _ = side.write(prompts, 1)
            all_, ids = side.write(prompts, tokens)
            speeds[name].append(new / max(all_ - first, 1e-9))
            written[name] += ids
    for side in sides.values():
        side.close()
    print(f"{model.name}, {batch} streams: ours {statistics.median(speeds['ours']):.1f} tokens a CPU second")
    for name in peers:
        ratios = [a / b for a, b in zip(speeds["ours"], speeds[name])]
        agree = sum(a == b for a, b in zip(written["ours"], written[name]))
        count = len(written["ours"])
        told = f"{agree} of {count} streams have our ids" if any(written[name]) else "ids not told"
        print(f"  {name}: {statistics.median(speeds[name]):.1f}; ratio "
              f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f}); {told}")
    if "transformers" not in peers:
        return True
    pairs = zip(written["ours"], written["transformers"])
    return 4 * sum(a != b for a, b in pairs) <= len(written["ours"])


def wait(arguments, model, folder):
    """One token behind a long context: a pass over cached keys, beside reading it all again."""
    ours = Ours(arguments, model, folder, 1, longest=arguments.context + 64)
    prompts = random_ids(1, arguments.context, 1)
    again, _ = ours.write(prompts, 1)
    longer, _ = ours.write(prompts, 33)
    one = max(longer - again, 1e-9) / 32
    print(f"a decoding step behind {arguments.context} tokens, which is what a Wait costs: "
          f"{1000 * one:.0f} ms of CPU time, reading them again {again:.1f} s: {again / one:.0f} "
          "times")


def curve(arguments, model, folder):
    """Five budgets of the same questions beside the largest alone."""
    ours = Ours(arguments, model, folder, 4)
    prompts, ratios = random_ids(4, 64, 1), []
    budget = '{{name = "{0}", max_tokens_thinking = {0}, min_tokens_thinking = {0}}}'
    for _ in range(max(1, arguments.rounds // 2)):
        one, all_ = (
            ours.write(prompts, 8, budget=f"[{', '.join(map(budget.format, budgets))}]")[0]
            for budgets in ([400], [0, 50, 100, 200, 400])
        )
        ratios.append(all_ / one)
    print(f"a curve of five budgets: {statistics.median(ratios):.2f} times its longest run "
          f"({min(ratios):.2f} to {max(ratios):.2f})")


if __name__ == "__main__":
    main()
