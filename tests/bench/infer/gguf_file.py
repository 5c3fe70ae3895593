# A GGUF file of a Qwen2 checkpoint for the peers that read nothing else: gguf_file.py MODEL OUT.gguf
"""Matrices as bf16 or, with --f16, as fp16; vectors as fp32: the checkpoint's numbers, no quantisation."""

import argparse
import json
import pathlib

import gguf
import torch
from safetensors.torch import load_file


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=pathlib.Path)
    parser.add_argument("out", type=pathlib.Path)
    parser.add_argument("--f16", action="store_true")
    arguments = parser.parse_args()
    kind = gguf.GGMLQuantizationType.F16 if arguments.f16 else gguf.GGMLQuantizationType.BF16
    config = json.loads((arguments.model / "config.json").read_text())
    partial = arguments.out.with_suffix(".partial")
    writer = gguf.GGUFWriter(partial, "qwen2")
    describe(writer, config)
    tokens(writer, json.loads((arguments.model / "tokenizer.json").read_text()), config)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.QWEN2, config["num_hidden_layers"])
    for file in sorted(arguments.model.glob("*.safetensors")):
        for name, tensor in load_file(file).items():
            name = names.get_name(name, try_suffixes=(".weight", ".bias"))
            tensor = tensor.to(torch.float32).numpy()
            if tensor.ndim == 1:
                writer.add_tensor(name, tensor)
            else:
                writer.add_tensor(name, gguf.quants.quantize(tensor, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    partial.rename(arguments.out)


def describe(writer, config):
    writer.add_name("checkpoint")
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_rope_freq_base(config["rope_theta"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_BF16)


def tokens(writer, tokenizer, config):
    """The vocabulary, filled up to the embedding's rows."""
    model = tokenizer["model"]
    names = {id: text for text, id in model["vocab"].items()}
    special = {token["id"]: token["content"] for token in tokenizer["added_tokens"]}
    listed, types = [], []
    for id in range(config["vocab_size"]):
        listed.append(special.get(id) or names.get(id) or f"[unused{id}]")
        kind = gguf.TokenType.CONTROL if id in special else gguf.TokenType.NORMAL
        types.append(kind if id in special or id in names else gguf.TokenType.UNUSED)
    merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in model["merges"]]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("qwen2")
    writer.add_token_list(listed)
    writer.add_token_types(types)
    writer.add_token_merges(merges)
    writer.add_eos_token_id(config["eos_token_id"])
    writer.add_add_bos_token(False)


if __name__ == "__main__":
    main()
