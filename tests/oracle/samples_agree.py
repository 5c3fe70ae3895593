# Replays a greedy evaluation in transformers: samples_agree.py CHECKPOINT SAMPLES.jsonl
# Every id of the thinking must be the likeliest one for transformers too. After `just demo`:
#   .venv/bin/python tests/oracle/samples_agree.py runs/demo/train/checkpoint runs/demo/infer/samples_64.jsonl
import json
import sys

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

OPENING = 2  # <|im_start|> think

checkpoint, samples = sys.argv[1:]
tokenizer = AutoTokenizer.from_pretrained(checkpoint)
model = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32).eval()
compared = equal = 0
with open(samples, encoding="utf-8", newline="\n") as lines, torch.no_grad():
    for row in map(json.loads, lines):
        prompt, written = tokenizer(row["prompt"])["input_ids"], row["token_ids"]
        if len(prompt) != row["prompt_tokens"]:
            sys.exit(f"question {row['id']}: {len(prompt)} prompt ids, not {row['prompt_tokens']}")
        likeliest = model(torch.tensor([prompt + written])).logits[0].argmax(-1).tolist()
        for place in range(OPENING, OPENING + row["thinking_tokens"]):
            compared += 1
            equal += likeliest[len(prompt) + place - 1] == written[place]
print(json.dumps({"compared": compared, "equal": equal}))
sys.exit(0 if compared and compared == equal else 1)
