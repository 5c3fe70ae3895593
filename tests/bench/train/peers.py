# Training steps of PyTorch and transformers on demand, for compare.py.
"""Usage: python peers.py make VOCABULARY FOLDER
       python peers.py MODE OPTIMIZER MODEL_FOLDER BATCH.json

`make` writes a random Qwen2. MODE is `padded` (the batch right-padded into one pass, what a
collator does by default), `checkpointed` (the same with gradient checkpointing) or `alone` (an
example a pass, gradients accumulated: no padding). OPTIMIZER is torch's AdamW, `default` or
`fused`. Lines on standard input name what to do: `warm`, a step over the two shortest examples, or
`step`, one over all; each answers with a line of JSON. fp32, one thread.
"""

import json
import sys

import torch
from transformers import Qwen2Config, Qwen2ForCausalLM
from transformers.utils.logging import disable_progress_bar


def make(vocabulary, folder):
    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=int(vocabulary), hidden_size=512, intermediate_size=2816,
        num_hidden_layers=12, num_attention_heads=8, num_key_value_heads=2,
        max_position_embeddings=4096, tie_word_embeddings=False, use_sliding_window=False,
        rope_parameters={"rope_type": "default", "rope_theta": 1e6}, dtype=torch.float32,
    )
    Qwen2ForCausalLM(config).save_pretrained(folder)


class Peer:
    def __init__(self, mode, optimizer, folder, batch):
        given = json.load(open(batch))
        self.examples = sorted(given["ids"], key=len)
        self.trained_from = given["trained_from"]
        self.model = Qwen2ForCausalLM.from_pretrained(folder, dtype=torch.float32).train()
        self.model.config.use_cache = False
        self.mode = mode
        if mode == "checkpointed":
            self.model.gradient_checkpointing_enable()
        decayed = [p for p in self.model.parameters() if p.dim() >= 2]
        others = [p for p in self.model.parameters() if p.dim() < 2]
        self.optimizer = torch.optim.AdamW(
            [{"params": decayed, "weight_decay": 1e-4}, {"params": others, "weight_decay": 0.0}],
            lr=1e-4, betas=(0.9, 0.95), eps=1e-8, fused=True if optimizer == "fused" else None,
        )

    def step(self, examples):
        self.optimizer.zero_grad()
        loss = self.alone(examples) if self.mode == "alone" else self.padded(examples)
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        return {"loss": loss, "grad_norm": norm.item()}

    def padded(self, examples):
        longest = max(map(len, examples))
        ids = torch.zeros(len(examples), longest, dtype=torch.int64)
        mask, labels = torch.zeros_like(ids), torch.full_like(ids, -100)
        for row, example in enumerate(examples):
            ids[row, :len(example)] = torch.tensor(example)
            mask[row, :len(example)] = 1
            labels[row, self.trained_from:len(example)] = ids[row, self.trained_from:len(example)]
        loss = self.model(input_ids=ids, attention_mask=mask, labels=labels).loss
        loss.backward()
        return loss.item()

    def alone(self, examples):
        targets = sum(len(example) - self.trained_from for example in examples)
        total = 0.0
        for example in examples:
            ids = torch.tensor([example])
            labels = ids.clone()
            labels[:, :self.trained_from] = -100
            loss = self.model(input_ids=ids, labels=labels, num_items_in_batch=targets).loss
            loss.backward()
            total += loss.item()
        return total


def main(mode, optimizer, folder, batch):
    torch.set_num_threads(1)
    peer = Peer(mode, optimizer, folder, batch)
    for line in sys.stdin:
        some = peer.examples[:2] if line.strip() == "warm" else peer.examples
        print(json.dumps(peer.step(some)), flush=True)


if __name__ == "__main__":
    disable_progress_bar()
    if len(sys.argv) == 4 and sys.argv[1] == "make":
        make(*sys.argv[2:])
    elif len(sys.argv) == 5:
        main(*sys.argv[1:])
    else:
        sys.exit(__doc__)
