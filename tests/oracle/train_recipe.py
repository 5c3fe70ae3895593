"""s1's fine-tuning recipe in PyTorch and transformers, from one of our run files.

    python tests/oracle/train_recipe.py CONFIG.toml OUT.safetensors [--set section.key=value ...]
        [--steps N] [--after PREFIX ...]

Reads the keys of `train run` that shape the numbers: seed, data.{examples (JSONL), block_size},
model.path, batch.{global_batch, loss_average}, optimizer, schedule. Shares nothing with our
program: text by the model's own chat template, ids by tokenizers, the order of examples by a
ChaCha8 written down here, every example alone in its pass (no padding, no packing), logits by
transformers, decay groups by its trainer's rule, its cosine schedule, torch's AdamW and clipping.
Everything but the loss in fp32 on one thread of the CPU.

OUT holds losses, grad_norms (before clipping) and rates [steps], order [steps, global_batch],
lengths and first_trained [examples], and after.NAME of the parameters whose names begin with a
PREFIX (of all without --after).
"""

import argparse
import hashlib
import json
import math
import tomllib
from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import (
    PreTrainedTokenizerFast,
    Qwen2ForCausalLM,
    get_cosine_schedule_with_warmup,
)
from transformers.trainer_pt_utils import get_parameter_names
from transformers.utils.logging import disable_progress_bar

# transformers 5.23, Trainer.get_decay_parameter_names.
NOT_DECAYED = [r"bias", r"layernorm", r"rmsnorm", r"(?:^|\.)norm(?:$|\.)", r"_norm(?:$|\.)"]


def read_config(path, sets):
    config = tomllib.loads(Path(path).read_text())
    for item in sets:
        place, value = item.split("=", 1)
        *sections, key = place.split(".")
        table = config
        for section in sections:
            table = table.setdefault(section, {})
        table[key] = tomllib.loads(f"value = {value}")["value"]
    return config


# --- examples -------------------------------------------------------------------------------


def conversation(row):
    """As s1's data/tokenization.py."""
    answer = row["attempt"] if "Answer:" in row["attempt"] else "Answer: " + row["attempt"]
    thinking = "\n".join(row["thinking_trajectories"]).strip()
    content = f"<|im_start|>think\n{thinking}\n<|im_start|>answer\n{answer.strip()}"
    return [{"role": "user", "content": row["question"]},
            {"role": "assistant", "content": content}]


def read_examples(config):
    """Ids of every row, cut at the block size, and where its trained part begins."""
    tokenizer = PreTrainedTokenizerFast.from_pretrained(config["model"]["path"])
    response = tokenizer.encode("<|im_start|>assistant\n")
    examples = []
    for line in Path(config["data"]["examples"]).read_text(encoding="utf-8").splitlines():
        turns = conversation(json.loads(line))
        ids = tokenizer.encode(tokenizer.apply_chat_template(turns, tokenize=False))
        starts = range(len(ids) - len(response))
        first = next(i for i in starts if ids[i:i + len(response)] == response) + len(response)
        examples.append((torch.tensor(ids[:config["data"]["block_size"]]), first))
    return examples


# --- order ----------------------------------------------------------------------------------


def chacha8(key):
    """The stream of rand_chacha's ChaCha8Rng::from_seed(key), 64 bits at a time."""
    mask = 0xFFFFFFFF
    constants = [0x61707865, 0x3320646E, 0x79622D32, 0x6B206574]
    words = [int.from_bytes(key[i:i + 4], "little") for i in range(0, 32, 4)]
    rotate = lambda x, n: ((x << n) | (x >> (32 - n))) & mask

    def quarter(s, a, b, c, d):
        for (x, y, z, n) in ((a, b, d, 16), (c, d, b, 12), (a, b, d, 8), (c, d, b, 7)):
            s[x] = (s[x] + s[y]) & mask
            s[z] = rotate(s[z] ^ s[x], n)

    for counter in range(1 << 32):
        start = constants + words + [counter, 0, 0, 0]
        s = list(start)
        for _ in range(4):
            for i in range(4):
                quarter(s, i, 4 + i, 8 + i, 12 + i)
            for i in range(4):
                quarter(s, i, 4 + (i + 1) % 4, 8 + (i + 2) % 4, 12 + (i + 3) % 4)
        s = [(a + b) & mask for a, b in zip(s, start)]
        yield from (low | high << 32 for low, high in zip(s[::2], s[1::2]))


def permutation(seed, epoch, count):
    """Fisher-Yates from the end, drawn for the purpose ("order", epoch)."""
    key = hashlib.sha256(seed.to_bytes(8, "little"))
    for part in (b"order", str(epoch).encode()):
        key.update(len(part).to_bytes(8, "little") + part)
    draws = chacha8(key.digest())

    def below(n):
        largest = (1 << 64) - 1
        return next(draw for draw in draws if draw < largest - largest % n) % n

    order = list(range(count))
    for last in range(count - 1, 0, -1):
        other = below(last + 1)
        order[last], order[other] = order[other], order[last]
    return order


def batches(config, count):
    """The examples of every step; an epoch's last batch is refilled from the epoch's start."""
    size = config["batch"]["global_batch"]
    for epoch in range(config["schedule"]["epochs"]):
        order = permutation(config["seed"], epoch, count)
        for start in range(0, count, size):
            yield [order[i % count] for i in range(start, start + size)]


# --- training -------------------------------------------------------------------------------


def example_loss(model, ids, first):
    """The mean over the trained tokens, each predicted by the logits before it, as transformers'
    own loss, but in fp64: over 151,936 logits torch's fp32 log_softmax on the CPU is 5e-6 of the
    loss off, and its gradient 1.4e-5 (both seen by computing the model in fp64)."""
    first = max(first, 1)
    logits = model(input_ids=ids[None]).logits[0, first - 1:-1]
    return torch.nn.functional.cross_entropy(logits.double(), ids[first:]).float()


def backward(model, batch, by_token):
    """Gradients of the batch's loss, one example at a time; returns the loss."""
    # The very first token has nothing before it that could predict it.
    counts = [len(ids) - max(first, 1) for ids, first in batch]
    loss = torch.zeros([])
    for (ids, first), count in zip(batch, counts):
        weight = count / sum(counts) if by_token else 1 / len(batch)
        part = example_loss(model, ids, first) * weight
        part.backward()
        loss += part.detach()
    return loss


def optimizer_of(model, settings):
    decayed = set(get_parameter_names(model, [torch.nn.LayerNorm], NOT_DECAYED))
    named = list(model.named_parameters())
    groups = [
        {"params": [p for name, p in named if name in decayed],
         "weight_decay": settings["weight_decay"]},
        {"params": [p for name, p in named if name not in decayed], "weight_decay": 0.0},
    ]
    betas = (settings["beta1"], settings["beta2"])
    # foreach=False holds no second copy of a large model's state.
    return torch.optim.AdamW(groups, lr=settings["learning_rate"], betas=betas,
                             eps=settings["eps"], foreach=False)


def exact_norm(model):
    """Of all gradients, in fp64: torch's fp32 norm on the CPU is 1.4e-4 short of it where a
    tensor has 136 million elements."""
    norms = [torch.linalg.vector_norm(p.grad, dtype=torch.float64) for p in model.parameters()]
    return torch.linalg.vector_norm(torch.stack(norms)).item()


def train(config, steps=None, prefixes=("",)):
    """Runs the recipe, or its first `steps` steps, and returns OUT's tensors."""
    disable_progress_bar()
    torch.set_num_threads(1)
    examples = read_examples(config)
    plan = list(batches(config, len(examples)))
    model = Qwen2ForCausalLM.from_pretrained(config["model"]["path"], dtype=torch.float32).train()
    optimizer = optimizer_of(model, config["optimizer"])
    warmup = math.ceil(config["schedule"]["warmup_ratio"] * len(plan))
    schedule = get_cosine_schedule_with_warmup(optimizer, warmup, len(plan))
    by_token = config["batch"].get("loss_average", "example") == "token"
    losses, norms, rates = [], [], []
    for batch in plan[:steps]:
        optimizer.zero_grad()
        losses.append(backward(model, [examples[i] for i in batch], by_token))
        norms.append(exact_norm(model))
        torch.nn.utils.clip_grad_norm_(model.parameters(), config["optimizer"]["max_grad_norm"])
        rates.append(schedule.get_last_lr()[0])
        optimizer.step()
        schedule.step()
    after = {f"after.{name}": p.detach() for name, p in model.named_parameters()
             if name.startswith(tuple(prefixes))}
    return after | {
        "losses": torch.stack(losses), "grad_norms": torch.tensor(norms, dtype=torch.float64),
        "rates": torch.tensor(rates, dtype=torch.float64), "order": torch.tensor(plan[:steps]),
        "lengths": torch.tensor([len(ids) for ids, _ in examples]),
        "first_trained": torch.tensor([first for _, first in examples]),
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("config")
    parser.add_argument("out")
    parser.add_argument("--set", action="append", default=[])
    parser.add_argument("--steps", type=int)
    parser.add_argument("--after", nargs="*", default=[""])
    options = parser.parse_args()
    tensors = train(read_config(options.config, options.set), options.steps, options.after)
    save_file({name: tensors[name].contiguous() for name in sorted(tensors)}, options.out)


if __name__ == "__main__":
    main()
