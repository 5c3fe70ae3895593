# Checks our texts of training examples against s1's rule, written out in Python.
"""Usage: python tests/oracle/example_text.py ROWS.jsonl

Every line has `question`, `thinking_trajectories`, `attempt` and our `text`. The rule is s1's
data/tokenization.py: Qwen2.5's chat template over one user and one assistant turn.
"""

import json
import sys

SYSTEM = "You are Qwen, created by Alibaba Cloud. You are a helpful assistant."


def text(question, thinking_trajectories, attempt):
    attempt = "Answer: " + attempt if "Answer:" not in attempt else attempt
    assistant = (
        "<|im_start|>think\n" + "\n".join(thinking_trajectories).strip()
        + "\n<|im_start|>answer\n" + attempt.strip()
    )
    turns = [("system", SYSTEM), ("user", question), ("assistant", assistant)]
    return "".join(f"<|im_start|>{role}\n{content}<|im_end|>\n" for role, content in turns)


def main(file):
    with open(file, encoding="utf-8", newline="\n") as lines:
        rows = [json.loads(line) for line in lines]
    for number, row in enumerate(rows, 1):
        wanted = text(row["question"], row["thinking_trajectories"], row["attempt"])
        if row["text"] != wanted:
            sys.exit(f"row {number}: got {row['text']!r}, expected {wanted!r}")
    print(f"{len(rows)} texts are as s1's rule makes them")


main(sys.argv[1])
