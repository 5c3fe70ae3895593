# Checks ids and trained tokens against transformers and the rule of TRL's collator.
"""Usage: python tests/oracle/masks_agree.py MODEL_FOLDER ROWS.jsonl

Every line has `of`: a row as it stands in a file, of the kind `s1`, `messages` or `text`; and
`ours`: the limit in tokens, our ids and 1 where a token is trained. Prints how many were compared
and which differ. The texts come from the folder's own chat template, the ids from its tokenizer,
truncated as SFTTrainer does; the labels are those of TRL 0.12's DataCollatorForCompletionOnlyLM.
"""

import json
import sys

import numpy as np
from transformers import AutoTokenizer

IGNORE = -100


def text_of(tokenizer, kind, row):
    if kind == "text":
        return row["text"]
    messages = row.get("messages")
    if kind == "s1":
        attempt = row["attempt"]
        attempt = "Answer: " + attempt if "Answer:" not in attempt else attempt
        content = (
            "<|im_start|>think\n" + "\n".join(row["thinking_trajectories"]).strip()
            + "\n<|im_start|>answer\n" + attempt.strip()
        )
        messages = [{"role": "user", "content": row["question"]},
                    {"role": "assistant", "content": content}]
    return tokenizer.apply_chat_template(messages, tokenize=False)


def labels_of(ids, instruction, response, pad):
    """DataCollatorForCompletionOnlyLM.torch_call of TRL 0.12 for one example."""
    labels = np.array(ids)
    labels[labels == pad] = IGNORE
    responses = []
    for at in np.where(labels == response[0])[0]:
        if response == labels[at:at + len(response)].tolist():
            responses.append(at + len(response))
    if not responses:
        labels[:] = IGNORE
    humans = []
    for at in np.where(labels == instruction[0])[0]:
        if instruction == labels[at:at + len(instruction)].tolist():
            humans.append(at)
    if not humans:
        labels[:] = IGNORE
    if humans and responses and humans[0] > responses[0]:
        humans = [0] + humans
    for pair, (start, end) in enumerate(zip(humans, responses)):
        if pair != 0:
            labels[start:end] = IGNORE
        else:
            labels[:end] = IGNORE
    if len(responses) < len(humans):
        labels[humans[-1]:] = IGNORE
    return labels


def main(folder, file):
    tokenizer = AutoTokenizer.from_pretrained(folder)
    instruction = tokenizer.encode("<|im_start|>user", add_special_tokens=False)
    response = tokenizer.encode("<|im_start|>assistant\n", add_special_tokens=False)
    pad = tokenizer.convert_tokens_to_ids("<|fim_pad|>")
    with open(file, encoding="utf-8", newline="\n") as lines:
        rows = [json.loads(line) for line in lines]
    mismatches = []
    for number, row in enumerate(rows, 1):
        text, ours = text_of(tokenizer, row["of"]["kind"], row["of"]["row"]), row["ours"]
        ids = tokenizer(text, truncation=True, max_length=ours["limit"])["input_ids"]
        trained = (labels_of(ids, instruction, response, pad) != IGNORE).astype(int).tolist()
        if ids != ours["ids"] or trained != ours["trained"]:
            mismatches.append({"row": number, "text": text, "ids": ids, "trained": trained})
    print(json.dumps({"compared": len(rows), "mismatches": mismatches[:3]}))


main(*sys.argv[1:])
