"""Loads a checkpoint folder with transformers and compares its logits with ours.

    python tests/oracle/checkpoint_loads.py CHECKPOINT OURS.safetensors BASE

OURS holds, for examples I = 0, 1, …, ids.I (int64 [T]) and logits.I (fp32 [T, V]). Prints one
JSON object: missing and unexpected tensors, whether head and embedding are tied, the tokenizer's
class (null without one), largest_difference, and largest_relative (to the largest logit of its
example). largest_from_base is the largest difference from transformers' own logits on the folder
BASE, whose weights the checkpoint holds.
"""

import json
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.utils.logging import disable_progress_bar


def load(folder):
    model, info = AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager", output_loading_info=True
    )
    return model.eval(), info


def main(checkpoint, ours, base):
    disable_progress_bar()
    torch.set_num_threads(1)
    (model, info), (base, _) = load(checkpoint), load(base)
    tensors = load_file(ours)
    report = {
        "missing": sorted(info["missing_keys"]),
        "unexpected": sorted(info["unexpected_keys"]),
        "mismatched": sorted(map(str, info["mismatched_keys"])),
        "tied": model.lm_head.weight.data_ptr() == model.model.embed_tokens.weight.data_ptr(),
        "tokenizer": None,
        "examples": 0,
        "largest_difference": 0.0,
        "largest_relative": 0.0,
        "largest_from_base": 0.0,
    }
    if (Path(checkpoint) / "tokenizer.json").exists():
        report["tokenizer"] = type(AutoTokenizer.from_pretrained(checkpoint)).__name__
    while f"ids.{report['examples']}" in tensors:
        compare(model, base, tensors, report)
    if report["examples"] == 0:
        sys.exit(f"error: {ours} holds no tensor ids.0")
    print(json.dumps(report, indent=2))


def compare(model, base, tensors, report):
    """Adds the next example to the report."""
    i = report["examples"]
    ids, logits = tensors[f"ids.{i}"], tensors[f"logits.{i}"]
    with torch.no_grad():
        expected = model(input_ids=ids[None]).logits[0]
        from_base = (base(input_ids=ids[None]).logits[0] - expected).abs().max().item()
    difference = (logits - expected).abs().max().item()
    relative = difference / expected.abs().max().item()
    report["examples"] = i + 1
    report["largest_difference"] = max(report["largest_difference"], difference)
    report["largest_relative"] = max(report["largest_relative"], relative)
    report["largest_from_base"] = max(report["largest_from_base"], from_base)


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    main(*sys.argv[1:])
