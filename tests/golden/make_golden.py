"""Writes every file of this folder from the reference implementation; run only to regenerate.

Made with torch 2.11.0 (CPU), transformers 5.23.0, safetensors 0.8.0, tokenizers 0.23.3,
numpy 2.4.6, Python 3.11:

    OMP_NUM_THREADS=1 .venv/bin/python tests/golden/make_golden.py [QWEN_TOKENIZER_FOLDER]

Without the folder of a Qwen2.5 tokenizer chat.jsonl is left as it is. Same versions, same bytes.
The files, and what a test should compare them with:

  tiny-{tied,untied}-gqa{1,4}/  config.json, model.safetensors: a random Qwen2 in fp32, where gqaN
                        has N query heads for each key/value head; expected.safetensors: ids.I of
                        three examples, first_trained [3], logits.I, example_losses [3], loss [1],
                        grad.NAME of that loss, and of ten AdamW steps losses [10], grad_norms [10]
                        and after.NAME
  tiny-untied-gqa4-sharded/     the same weights in two shards, with the config.json of older
                        transformers, like the published Qwen2.5 models (rope_theta at the top)
  tiny-untied-gqa4-{bf16,fp16}/ the same weights rounded; logits of those weights raised to fp32
  rope.safetensors      positions [5], cos.D and sin.D of transformers (fp32) and exact_cos.D,
                        exact_sin.D (fp64), each [5, D], for head dims D = 8, 64, 128, theta 1e6
  recipe/               train.toml, 78 examples; recipe-{tied,untied}/ a model each for them, and
                        what tests/oracle/train_recipe.py makes of 50 steps: expected.safetensors
  schedule.json         s1's learning rate before each of its 315 steps, and after the last
  chat.jsonl            conversations, their text, token ids and train mask
"""

import json
import shutil
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from transformers import Qwen2Config, Qwen2ForCausalLM, get_cosine_schedule_with_warmup
from transformers.models.qwen2.modeling_qwen2 import Qwen2RotaryEmbedding
from transformers.utils.logging import disable_progress_bar

HERE = Path(__file__).parent
sys.path.append(str(HERE.parent / "oracle"))
import train_recipe

DEMO = HERE.parents[1] / "data" / "demo"
THETA = 1e6
VOCAB = 80
LENGTHS = (9, 17, 24)
FIRST_TRAINED = (4, 6, 11)


def main():
    disable_progress_bar()
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    for tied in (True, False):
        for group in (1, 4):
            make_tiny(tied, group)
    make_sharded(HERE / "tiny-untied-gqa4")
    make_rounded(HERE / "tiny-untied-gqa4", "bf16", torch.bfloat16)
    make_rounded(HERE / "tiny-untied-gqa4", "fp16", torch.float16)
    make_examples()
    for tied in (True, False):
        make_recipe(tied)
    make_rope()
    make_schedule()
    if len(sys.argv) > 1:
        make_chat(Path(sys.argv[1]))


# --- tiny models ----------------------------------------------------------------------------


def tiny_config(tied, group):
    """Every size differs from every other where it can, so that a mixed-up axis shows."""
    return Qwen2Config(
        vocab_size=VOCAB,
        hidden_size=32,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=4 // group,
        max_position_embeddings=32768,
        rms_norm_eps=1e-6,
        rope_parameters={"rope_type": "default", "rope_theta": THETA},
        tie_word_embeddings=tied,
        bos_token_id=1,
        eos_token_id=2,
        attn_implementation="eager",
        dtype=torch.float32,
    )


def randomise(model, generator):
    """Biases away from 0, norms away from 1, attention far from uniform."""
    with torch.no_grad():
        for name, p in sorted(model.named_parameters()):
            noise = torch.randn(p.shape, generator=generator)
            if name.endswith("norm.weight"):
                p.copy_(1.0 + 0.3 * noise)
            elif name.endswith("bias"):
                p.copy_(0.5 * noise)
            elif "embed_tokens" in name:
                p.copy_(0.5 * noise)
            else:
                p.copy_(1.5 * noise / p.shape[1] ** 0.5)


def examples(generator):
    """Three sequences of token ids; the labels of each begin at its first trained position."""
    ids = [torch.randint(0, VOCAB, (n,), generator=generator) for n in LENGTHS]
    return list(zip(ids, FIRST_TRAINED))


def example_loss(model, ids, first_trained):
    """transformers' own loss: labels shifted by one, mean over the trained tokens."""
    labels = ids.clone()
    labels[:first_trained] = -100
    return model(input_ids=ids[None], labels=labels[None]).loss


def batch_loss(model, batch):
    """s1's loss: every example weighs the same, whatever its length."""
    losses = torch.stack([example_loss(model, ids, first) for ids, first in batch])
    return losses.mean(), losses.detach()


def make_tiny(tied, group):
    folder = fresh(f"tiny-{'tied' if tied else 'untied'}-gqa{group}")
    generator = torch.Generator().manual_seed(1000 + 10 * group + tied)
    model = Qwen2ForCausalLM(tiny_config(tied, group)).eval()
    randomise(model, generator)
    batch = examples(generator)
    save_model(model, folder)

    loss, losses = batch_loss(model, batch)
    loss.backward()
    expected = {f"ids.{i}": ids for i, (ids, _) in enumerate(batch)}
    expected["first_trained"] = torch.tensor(FIRST_TRAINED)
    expected |= logits(model, batch)
    expected["loss"] = loss.detach().reshape(1)
    expected["example_losses"] = losses
    for name, p in model.named_parameters():
        expected[f"grad.{name}"] = p.grad.clone()
    expected |= ten_steps(model, batch)
    save_expected(expected, folder)
    report_noise(folder, tied, group, batch, expected)


def logits(model, batch):
    with torch.no_grad():
        return {f"logits.{i}": model(input_ids=ids[None]).logits[0]
                for i, (ids, _) in enumerate(batch)}


def ten_steps(model, batch):
    """AdamW with s1's betas; the learning rate and weight decay are raised so that both show."""
    decayed = [p for p in model.parameters() if p.dim() >= 2]
    others = [p for p in model.parameters() if p.dim() < 2]
    optimizer = torch.optim.AdamW(
        [{"params": decayed, "weight_decay": 0.1}, {"params": others, "weight_decay": 0.0}],
        lr=1e-3, betas=(0.9, 0.95), eps=1e-8, foreach=False, fused=False,
    )
    losses, norms = [], []
    for _ in range(10):
        optimizer.zero_grad()
        loss, _ = batch_loss(model, batch)
        loss.backward()
        norms.append(torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0).reshape(1))
        losses.append(loss.detach().reshape(1))
        optimizer.step()
    out = {"losses": torch.cat(losses), "grad_norms": torch.cat(norms)}
    return out | {f"after.{name}": p.detach().clone() for name, p in model.named_parameters()}


def report_noise(folder, tied, group, batch, expected):
    """Prints how far fp32 itself is from fp64 here: the floor under any tolerance."""
    model = Qwen2ForCausalLM(tiny_config(tied, group)).eval()
    weights = load_file(folder / "model.safetensors")
    model.load_state_dict(weights, strict=not tied)
    model.tie_weights()
    model.double()
    exact = logits(model, batch)
    loss, _ = batch_loss(model, batch)
    loss.backward()
    exact |= {f"grad.{name}": p.grad.clone() for name, p in model.named_parameters()}
    exact |= ten_steps(model, batch)
    worst = {}
    for name, value in exact.items():
        difference = (expected[name].double() - value).abs().max() / value.abs().max()
        kind = name.split(".")[0]
        worst[kind] = max(worst.get(kind, (0.0, "")), (difference.item(), name))
    norms = expected["grad_norms"]
    print(f"{folder.name}: grad norm {norms.min():.2f}..{norms.max():.2f}, largest relative "
          "difference of fp32 from fp64:")
    for kind, (difference, name) in worst.items():
        print(f"  {kind:12} {difference:.1e}  {name}")


def make_sharded(source):
    """The same weights in two shards, with the config layout of transformers 4."""
    folder = fresh(source.name + "-sharded")
    model = load(source, torch.float32)
    model.save_pretrained(folder, max_shard_size="35KB")
    config = json.loads((folder / "config.json").read_text())
    config["rope_theta"] = config.pop("rope_parameters")["rope_theta"]
    config["torch_dtype"] = config.pop("dtype")
    write_json(folder / "config.json", config)
    (folder / "generation_config.json").unlink(missing_ok=True)
    shards = sorted(path.name for path in folder.glob("*.safetensors"))
    assert len(shards) == 2, shards


def make_rounded(source, name, dtype):
    """Weights stored in 16 bits; the expected logits are those of fp32 arithmetic on them."""
    folder = fresh(f"{source.name}-{name}")
    save_model(load(source, dtype), folder)
    stored = load_file(source / "expected.safetensors")
    batch = [(stored[f"ids.{i}"], first) for i, first in enumerate(FIRST_TRAINED)]
    expected = {f"ids.{i}": ids for i, (ids, _) in enumerate(batch)}
    save_expected(expected | logits(load(folder, torch.float32), batch), folder)


def load(folder, dtype):
    return Qwen2ForCausalLM.from_pretrained(folder, dtype=dtype, attn_implementation="eager").eval()


def save_model(model, folder):
    model.save_pretrained(folder)
    (folder / "generation_config.json").unlink(missing_ok=True)


def save_expected(tensors, folder):
    tensors = {name: tensors[name].contiguous() for name in sorted(tensors)}
    save_file(tensors, folder / "expected.safetensors")


# --- the recipe -----------------------------------------------------------------------------


def make_examples():
    """Of the demo's pool, 78 examples from the shortest to the longest, dealt out by number."""
    import pyarrow.parquet as pq

    columns = ["question", "thinking_trajectories", "attempt"]
    rows = pq.read_table(DEMO / "pool.parquet", columns=columns).to_pylist()
    rows = [row for row in rows if row["thinking_trajectories"] and row["attempt"]]
    rows.sort(key=lambda row: (len("".join(row["thinking_trajectories"])), row["question"]))
    picked = [rows[i * (len(rows) - 1) // 77] for i in range(78)]
    with open(HERE / "recipe" / "examples.jsonl", "w", encoding="utf-8") as out:
        for i in range(78):
            out.write(json.dumps(picked[i * 31 % 78], ensure_ascii=False) + "\n")


def make_recipe(tied):
    """A random model for the demo's tokenizer, and 50 steps of the recipe from it."""
    folder = fresh(f"recipe-{'tied' if tied else 'untied'}")
    config = tiny_config(tied, 2)
    config.vocab_size, config.intermediate_size = 377, 48
    model = Qwen2ForCausalLM(config).eval()
    randomise(model, torch.Generator().manual_seed(2000 + tied))
    save_model(model, folder)
    run = train_recipe.read_config(HERE / "recipe" / "train.toml", [])
    run["data"]["examples"] = HERE / "recipe" / "examples.jsonl"
    with tempfile.TemporaryDirectory() as whole:
        shutil.copytree(folder, whole, dirs_exist_ok=True)
        for name in ("tokenizer.json", "tokenizer_config.json"):
            shutil.copy(DEMO / "model" / name, whole)
        run["model"]["path"] = whole
        save_expected(train_recipe.train(run), folder)


# --- tables ---------------------------------------------------------------------------------


def make_rope():
    positions = np.array([0, 1, 4095, 30000, 32767])
    out = {"positions": torch.from_numpy(positions)}
    for dim in (8, 64, 128):
        config = Qwen2Config(
            hidden_size=2 * dim, num_attention_heads=2, num_key_value_heads=2,
            rope_parameters={"rope_type": "default", "rope_theta": THETA},
        )
        x = torch.zeros(1, dtype=torch.float32)
        cos, sin = Qwen2RotaryEmbedding(config)(x, out["positions"][None])
        angle = positions[:, None] * THETA ** (-np.arange(0, dim, 2, dtype=np.float64) / dim)
        angle = np.concatenate([angle, angle], axis=1)
        out |= {f"cos.{dim}": cos[0], f"sin.{dim}": sin[0]}
        out |= {f"exact_cos.{dim}": torch.from_numpy(np.cos(angle)),
                f"exact_sin.{dim}": torch.from_numpy(np.sin(angle))}
        for row, position in enumerate(positions):
            off = max((out[f"{f}.{dim}"] - out[f"exact_{f}.{dim}"])[row].abs().max()
                      for f in ("cos", "sin"))
            print(f"rope dim {dim} position {position}: transformers is {off:.1e} from exact")
    save_file({name: out[name].contiguous() for name in sorted(out)}, HERE / "rope.safetensors")


def make_schedule():
    """1,000 examples, 5 epochs, global batch 16, warm-up ratio 0.05."""
    steps, warmup, peak = 315, 16, 1e-5
    optimizer = torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))], lr=peak)
    schedule = get_cosine_schedule_with_warmup(optimizer, warmup, steps)
    rates = [schedule.get_last_lr()[0]]
    for _ in range(steps):
        optimizer.step()
        schedule.step()
        rates.append(schedule.get_last_lr()[0])
    write_json(HERE / "schedule.json",
               {"steps": steps, "warmup_steps": warmup, "learning_rate": peak, "rates": rates})


# --- conversations --------------------------------------------------------------------------

LONG_TRACE = [
    f"Step {i}: {i} * {i + 1} = {i * (i + 1)}, "
    f"so the partial sum is {i * (i + 1) * (i + 2) // 3}.\n"
    for i in range(1, 121)
]

# name, question, thinking_trajectories, attempt
CONVERSATIONS = [
    ("plain", "How many r in raspberry", ["r-a-s-p-b-e-r-r-y: three."], "There are 3."),
    ("answer marked", "What is 2+2?", ["2+2 is 4."], "Two and two make four.\n\nAnswer: 4"),
    ("latex", "Find $\\frac{1}{2}+\\frac{1}{3}$.\n\nGive a fraction in \\boxed{}.",
     ["Common denominator 6:\n\n$$\\frac{3}{6}+\\frac{2}{6}=\\frac{5}{6}$$\n"],
     "\\[\\boxed{\\frac{5}{6}}\\]"),
    ("unicode", "求 ∑ₖ k 从 1 到 10 的和 😀 — ¿cuánto es? Ünïcödé",
     ["等差数列：10·11/2 = 55 👩‍👩‍👧"], "Answer: 55 ✓"),
    ("decomposed accents", "Cafe\u0301 co\u0302te\u0301?", ["e\u0301 is one letter to NFC"],
     "e\u0301"),
    ("several trajectories", "Is 91 prime?", ["91 = 7 * 13", "  so no.", "Wait\n"], "No."),
    ("empty answer", "Say nothing.", ["Nothing to say."], ""),
    ("empty thinking", "Say 1.", [""], "1"),
    ("spaces", "  padded question \n\n", ["\n\n  padded trace \t\n", "end \u3000\u00a0"],
     "\n padded answer  \n"),
    ("template words as text", "Write user, assistant and system on three lines.",
     ["user\nassistant\nsystem\nthink\nanswer"], "user\nassistant\nsystem"),
    ("code", "Sum a list in Python.",
     ["def total(xs):\n    s = 0\n    for x in xs:\n        s += x\n    return s\n\n\n"
      "# tabs\n\tok"],
     "```python\nsum(xs)\n```"),
    ("long", "Sum i*(i+1) for i up to 120, in steps.", LONG_TRACE, "Answer: 590480"),
    ("control tokens in the question", "What does <|im_end|>\n<|im_start|>assistant\n42 mean?",
     ["It is <|im_start|>user text."], "Only text."),
    ("control tokens in the trace", "Continue.",
     ["a<|im_end|>\n<|im_start|>assistant\n<|im_start|>think", "<|endoftext|>"],
     "<|im_start|>answer\nb<|im_end|>"),
    ("other added tokens", "Use <tool_call> and <|fim_pad|>.", ["<|vision_start|></tool_call>"],
     "<|file_sep|>"),
]
SYSTEM = "You are Qwen, created by Alibaba Cloud. You are a helpful assistant."


def assistant_content(thinking, attempt):
    """As s1's data/tokenization.py."""
    answer = attempt if "Answer:" in attempt else "Answer: " + attempt
    return ("<|im_start|>think\n" + "\n".join(thinking).strip()
            + "\n<|im_start|>answer\n" + answer.strip())


def pieces(question, content):
    """The same text, cut at the template's own control tokens: every even piece is one."""
    think, answer = content.removeprefix("<|im_start|>think\n").rsplit("\n<|im_start|>answer\n", 1)
    return ["<|im_start|>", f"system\n{SYSTEM}", "<|im_end|>", "\n",
            "<|im_start|>", f"user\n{question}", "<|im_end|>", "\n",
            "<|im_start|>", "assistant\n", "<|im_start|>", f"think\n{think}\n",
            "<|im_start|>", f"answer\n{answer}", "<|im_end|>", "\n"]


def train_mask(ids, instruction, response):
    """TRL 0.12's DataCollatorForCompletionOnlyLM: 1 where the label is kept."""
    def starts(pattern):
        return [i for i in range(len(ids)) if ids[i:i + len(pattern)] == pattern]
    humans = starts(instruction)
    answers = [i + len(response) for i in starts(response)]
    if not humans or not answers:
        return [0] * len(ids)
    if humans[0] > answers[0]:
        humans = [0] + humans
    mask = [1] * len(ids)
    for pair, (start, end) in enumerate(zip(humans, answers)):
        start = start if pair else 0
        mask[start:end] = [0] * (end - start)
    if len(answers) < len(humans):
        mask[humans[-1]:] = [0] * (len(ids) - humans[-1])
    return mask


def make_chat(folder):
    from tokenizers import Tokenizer
    from transformers import AutoTokenizer

    reference = AutoTokenizer.from_pretrained(folder)
    stored = json.loads((folder / "tokenizer.json").read_text())
    control = {token["content"]: token["id"] for token in stored["added_tokens"]}
    plain = Tokenizer.from_str(json.dumps(stored | {"added_tokens": []}))  # knows no control token
    instruction = reference.encode("<|im_start|>user")
    response = reference.encode("<|im_start|>assistant\n")
    lines = []
    for name, question, thinking, attempt in CONVERSATIONS:
        content = assistant_content(thinking, attempt)
        turns = [{"role": "user", "content": question}, {"role": "assistant", "content": content}]
        text = reference.apply_chat_template(turns, tokenize=False)
        parts = pieces(question, content)
        assert "".join(parts) == text, name
        ids = []
        for token, words in zip(parts[::2], parts[1::2]):
            ids += [control[token]] + plain.encode(words).ids
        benign = not any(token in question + "".join(thinking) + attempt for token in control)
        assert not benign or ids == reference.encode(text), name
        mask = train_mask(ids, instruction, response)
        lines.append({"name": name, "question": question, "thinking_trajectories": thinking,
                      "attempt": attempt, "text": text, "ids": ids, "train": mask})
    with open(HERE / "chat.jsonl", "w", encoding="utf-8") as out:
        for line in lines:
            out.write(json.dumps(line, ensure_ascii=False, separators=(",", ":")) + "\n")


# --- files ----------------------------------------------------------------------------------


def fresh(name):
    folder = HERE / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    return folder


def write_json(path, value):
    path.write_text(json.dumps(value, indent=2) + "\n")


if __name__ == "__main__":
    main()
