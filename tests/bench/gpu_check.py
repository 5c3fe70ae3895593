# The other side of G6 in `just gpu-check`: whole models in PyTorch and transformers.
"""Usage: python tests/bench/gpu_check.py

The models and lengths of train/examples/gpu_check/steps.rs, random weights: fp32 weights and AdamW
(fused) with bf16 autocast on a GPU, fp32 on a CPU; an example a pass, gradients accumulated, which
is the fastest form without padding; with gradient checkpointing where it does not fit otherwise.
Prints rows for the same table: tokens a second and peak memory.
"""

import resource
import statistics
import time

import torch
from transformers import Qwen2Config, Qwen2ForCausalLM

S1K = [2976, 3752, 4326, 4874, 5457, 6146, 7085, 8931]
ON_GPU = {"1.5B": (1536, 8960, 28, 12, 2, 151_936), "3B": (2048, 11008, 36, 16, 2, 151_936)}
ON_CPU = {"tiny": (256, 1024, 4, 4, 2, 8192)}


def model_of(shape, device):
    hidden, inner, layers, heads, kv_heads, vocabulary = shape
    config = Qwen2Config(
        vocab_size=vocabulary, hidden_size=hidden, intermediate_size=inner,
        num_hidden_layers=layers, num_attention_heads=heads, num_key_value_heads=kv_heads,
        max_position_embeddings=32768, tie_word_embeddings=True, use_cache=False,
        rope_parameters={"rope_type": "default", "rope_theta": 1e6}, dtype=torch.float32,
    )
    with torch.device(device):
        return Qwen2ForCausalLM(config).train()


def step(model, optimizer, examples, device):
    optimizer.zero_grad()
    targets = sum(len(ids) - len(ids) // 20 for ids in examples)
    for ids in examples:
        labels = ids.clone()
        labels[:len(ids) // 20] = -100
        with torch.autocast(device, torch.bfloat16, enabled=device == "cuda"):
            batch = dict(input_ids=ids[None], labels=labels[None])
            loss = model(**batch, num_items_in_batch=targets).loss
        loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    return loss.item()


def measure(name, shape, device, checkpointed):
    model = model_of(shape, device)
    if checkpointed:
        model.gradient_checkpointing_enable()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5, betas=(0.9, 0.95), fused=True)
    lengths = S1K if device == "cuda" else [length // 16 for length in S1K]
    examples = [torch.randint(shape[-1], (length,), device=device) for length in lengths]
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    step(model, optimizer, examples, device)
    times = []
    for _ in range(3):
        start = time.perf_counter()
        step(model, optimizer, examples, device)
        times.append(time.perf_counter() - start)
    peak = (torch.cuda.max_memory_allocated() if device == "cuda"
            else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
    rate = sum(lengths) / statistics.median(times)
    kind = "allocated" if device == "cuda" else "resident, Python and all"
    what = "checkpointed" if checkpointed else "nothing recomputed"
    print(f"| G6 | torch {torch.__version__}, Qwen2.5 {name}, {what} | {rate:.0f} tokens/s, peak "
          f"{peak / 2**30:.2f} GiB {kind} | |", flush=True)


def main():
    device = "cuda" if torch.cuda.is_available() else "cpu"
    for name, shape in (ON_GPU if device == "cuda" else ON_CPU).items():
        for checkpointed in (False, True):
            try:
                measure(name, shape, device, checkpointed)
            except torch.OutOfMemoryError:
                print(f"| G6 | torch, Qwen2.5 {name}, checkpointed: {checkpointed} | out of "
                      "memory | |")


if __name__ == "__main__":
    main()
