# The engine on real weights beside transformers: engine_agrees.py INFER MODEL QUESTIONS.jsonl
"""Greedy ids of `infer generate` in fp32, sixteen together and one at a time, against transformers;
then the same requests shuffled over 1, 2, 7 and 16 slots and after a restart.

    just oracle-engine

The first --single prompts are also written one at a time.
Of every id that the engine wrote, transformers must find none likelier after the same ids before
it: checked by one forward over prompt and ids, and for the first --generate prompts by its own
`generate`. Where it finds another, both logits must lie within 1e-3 of each other: fp32 sums in
another order. The smallest margins are printed.
"""

import argparse
import functools
import json
import pathlib
import random
import re
import subprocess
import sys
import tempfile

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

STOPS = ["<|im_end|>", "<|endoftext|>"]
TIE = 1e-3
print = functools.partial(print, flush=True)

CONFIG = """# One run of the comparison.
seed = 1
[model]
path = "{model}"
device = "cpu"
dtype = "float32"
max_model_len = 4096
[prompts]
prompt = "ids"
id = "n"
chat = false
[generation]
temperature = 0.0
until = ["<|im_end|>", "<|endoftext|>"]
"""


class Engine:
    """Runs `infer generate` on lists of ids."""

    def __init__(self, infer, model, folder):
        self.infer, self.model, self.folder = infer, model, pathlib.Path(folder)
        self.config = self.folder / "generate.toml"
        self.config.write_text(CONFIG.format(model=model))

    def write(self, prompts, order, **sets):
        """A list of lines for each prompt."""
        rows, output = self.folder / "prompts.jsonl", self.folder / "out"
        lines = (json.dumps({"n": n, "ids": prompts[n]}) + "\n" for n in order)
        rows.write_text("".join(lines))
        sets = sets | {"output": output, "prompts.path": rows}
        flags = [part for key, value in sets.items() for part in ("--set", f"{key}={value}")]
        command = [self.infer, "generate", self.config, "--overwrite", *flags]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            sys.exit(done.stderr)
        written = {n: [] for n in order}
        for line in (output / "completions.jsonl").open(encoding="utf-8", newline="\n"):
            row = json.loads(line)
            # The row's place depends on the order, all else must not.
            written[row.pop("id")].append(row | {"row": 0})
        return written, done.stdout


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("infer")
    parser.add_argument("model")
    parser.add_argument("questions")
    parser.add_argument("--prompts", type=int, default=50)
    parser.add_argument("--tokens", type=int, default=200)
    parser.add_argument("--single", type=int, default=50)
    parser.add_argument("--generate", type=int, default=5)
    parser.add_argument("--requests", type=int, default=200)
    arguments = parser.parse_args()
    tokenizer = AutoTokenizer.from_pretrained(arguments.model)
    questions = [json.loads(line)["question"] for line in open(arguments.questions, newline="\n")]
    prompts = [chat(tokenizer, question) for question in questions[: arguments.prompts]]
    with tempfile.TemporaryDirectory() as folder:
        engine = Engine(arguments.infer, arguments.model, folder)
        wrong = agree(engine, tokenizer, prompts, arguments)
        wrong += deterministic(engine, tokenizer, questions, arguments.requests)
    sys.exit(1 if wrong else 0)


def chat(tokenizer, question):
    turns = [{"role": "user", "content": question}]
    text = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
    return tokenizer(text)["input_ids"]


def agree(engine, tokenizer, prompts, arguments):
    """Differences to transformers that are no ties; the engine's own between batch sizes."""
    order = range(len(prompts))
    sets = {"generation.max_gen_toks": arguments.tokens}
    batched, said = engine.write(prompts, order, **sets, **{"engine.slots": 16})
    print(said)
    single, _ = engine.write(prompts, order[: arguments.single], **sets, **{"engine.slots": 1})
    wrong = sum(single[n] != batched[n] for n in single)
    print(f"one at a time and sixteen together: {wrong} of {len(single)} completions differ")
    model = AutoModelForCausalLM.from_pretrained(arguments.model, dtype=torch.float32).eval()
    stops = tokenizer.convert_tokens_to_ids(STOPS)
    compared, ties, margins = 0, [[] for _ in prompts], []
    with torch.no_grad():
        for n in order:
            ids = batched[n][0]["token_ids"]
            start = len(prompts[n])
            logits = model(torch.tensor([prompts[n] + ids])).logits[0, start - 1 : -1]
            best, chosen = logits.max(-1).values, logits.gather(1, torch.tensor([ids]).T)[:, 0]
            second = logits.topk(2, -1).values[:, 1]
            margins += (best - second).tolist()
            compared += len(ids)
            for place in (chosen < best).nonzero()[:, 0].tolist():
                margin = (best - chosen)[place].item()
                print(f"prompt {n}, id {place}: transformers' likeliest leads by {margin:.2e}")
                ties[n].append(margin)
                wrong += margin > TIE
    margins.sort()
    print(f"{compared} ids: {sum(map(len, ties))} where transformers has another; smallest margins between "
          f"its two likeliest: {', '.join(f'{margin:.1e}' for margin in margins[:5])}")
    for n in order[: arguments.generate]:
        theirs = model.generate(
            torch.tensor([prompts[n]]), max_new_tokens=arguments.tokens, do_sample=False,
            repetition_penalty=1.0, eos_token_id=stops,
            attention_mask=torch.ones(1, len(prompts[n]), dtype=torch.long),
            temperature=None, top_p=None, top_k=None, pad_token_id=stops[1],
        )[0, len(prompts[n]):].tolist()
        theirs = theirs[:-1] if theirs[-1] in stops else theirs
        same = theirs == batched[n][0]["token_ids"]
        print(f"prompt {n}: {len(theirs)} ids of its own generate, {'equal' if same else 'NOT equal'}")
        wrong += not same and not ties[n]
    return wrong


def deterministic(engine, tokenizer, questions, requests):
    """Requests of mixed lengths under four budgets, greedy and drawn, whatever is beside them, and
    once with a cache that is too small for them."""
    prompts = [chat(tokenizer, question)[: 8 + 5 * n] for n, question in enumerate(questions)]
    prompts = prompts[: requests // 4]
    # Some of several blocks, up to a place of their own.
    several = [id for question in questions for id in chat(tokenizer, question)]
    prompts += [several[n:][: 300 + 120 * n] for n in range(6)]
    budgets = ", ".join(
        f'{{name = "{n}", max_tokens_thinking = {n}, temperature = {n % 2}.0}}'
        for n in (0, 3, 9, 14)
    )
    sets = {"budget": f"[{budgets}]", "generation.max_gen_toks": 6}
    shape = json.loads((pathlib.Path(engine.model) / "config.json").read_text())
    head = shape["hidden_size"] // shape["num_attention_heads"]
    block = 2 * shape["num_hidden_layers"] * shape["num_key_value_heads"] * 256 * head * 4
    first, wrong = None, 0
    # Six blocks hold one sequence of 1,200 tokens, and little beside it.
    tight = {"engine.cache_gib": 6.01 * block / 2**30, "model.max_model_len": 1200}
    for slots, cache in ((1, {}), (2, {}), (7, {}), (16, {}), (16, {}), (7, tight)):
        order = list(range(len(prompts)))
        random.Random(slots).shuffle(order)
        chunk = 16 * slots
        sets |= {"engine.slots": slots, "engine.prefill_chunk": chunk}
        written, said = engine.write(prompts, order, **sets, **cache)
        evictions = int(re.search(r"(\d+) evictions", said)[1])
        if cache and not evictions:
            sys.exit(f"a cache of six blocks was enough:\n{said}")
        first = first or written
        differ = sum(written[n] != first[n] for n in first)
        print(f"{slots} slots, {4 * len(prompts)} requests shuffled, "
              f"{evictions} evictions: {differ} prompts differ")
        wrong += differ
    return wrong


if __name__ == "__main__":
    main()
