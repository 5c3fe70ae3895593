# s1's budget forcing, transcribed slowly and apart from ours, over scenarios with a scripted model.
"""A line of JSON a scenario comes in, with what our state machine made of it under "ours".

Three procedures of simplescaling/s1 at commit 77272c6 are written down here in the original's own
order: `_model_generate` of eval/lm-evaluation-harness/lm_eval/models/vllm_causallms.py for a batch
of one request (rounds, string or token stops, cutting, closing, rejection sampling), and the
README's "vLLM with budget forcing". `generate` stands for vLLM. The model's logits are a hash of
all ids before, and of how often it was asked for a continuation of them when that is to differ.

Where ours differs on purpose, the deviation is applied in `expected`, by name.
Prints how many scenarios are identical, of each kind, and the first that is not.
"""

import json
import sys
from collections import Counter

MASK = (1 << 64) - 1


def mix(state):
    """splitmix64's output function."""
    state = (state ^ (state >> 30)) * 0xBF58476D1CE4E5B9 & MASK
    state = (state ^ (state >> 27)) * 0x94D049BB133111EB & MASK
    return state ^ (state >> 31)


def hashed(state, ids):
    for id in ids:
        state = mix((state * 0x9E3779B97F4A7C15 + id + 1) & MASK)
    return state


class Model:
    """vLLM with a scripted model."""

    def __init__(self, scenario):
        self.vocab = scenario["vocab"]
        self.text = scenario["text"]  # of each id
        self.max_model_len = scenario["max_model_len"]
        self.begun = {}  # how often each prompt was continued

    def logits(self, state):
        return [mix((state + v) & MASK) >> 40 for v in range(self.vocab)]

    def generate(self, prompt, max_tokens, min_tokens=0, stop=(), stop_ids=(), anew=False):
        """The new ids, with those of the stop; the text, without; why it ended."""
        begun = self.begun.get(tuple(prompt), 0) if anew else 0
        self.begun[tuple(prompt)] = begun + 1
        # Of a try, only the first id depends on how often there was one.
        first, state = hashed(begun, prompt), hashed(0, prompt)
        new = []
        while True:
            text = "".join(self.text[id] for id in new)
            if new and new[-1] in stop_ids and len(new) > min_tokens:
                return new, "".join(self.text[id] for id in new[:-1]), "stop"
            for string in stop:
                if string in text:
                    return new, text[: text.index(string)], "stop"
            if len(new) >= max_tokens:
                return new, text, "length"
            if len(prompt) + len(new) >= self.max_model_len:
                return new, text, "context"  # which vLLM calls length, too
            logits = self.logits(state if new else first)
            if len(new) < min_tokens:
                for id in stop_ids:
                    logits[id] = -1
            new.append(logits.index(max(logits)))
            state = hashed(state, new[-1:])


def model_generate(llm, s):
    """`_model_generate`: the ids behind the prompt, how thinking ended, how often it was tried."""
    request = list(s["prompt"])
    thinking_start, thinking_end = s["thinking_start"], s["thinking_end"]
    thinking_end_max, newline = s["thinking_end_max"], s["newline"]
    until_thinking = s["until_thinking"]  # each a list of ids
    texts = ["".join(llm.text[id] for id in ids) for ids in until_thinking]
    max_tokens = s["max_tokens_thinking"]
    if max_tokens == "auto":
        max_tokens = s["max_gen_toks"] - len(request) - len(thinking_start)
        max_tokens -= len(thinking_end_max) + 100
    if s["rejection"]:
        max_tokens += 1
    params = {"max_tokens": max_tokens}
    if s["min_tokens_thinking"] is not None or s["thinking_n_ignore"] is not None:
        params["min_tokens"] = 1 if s["thinking_n_ignore"] is not None else s["min_tokens_thinking"]
        assert all(len(ids) == 1 for ids in until_thinking)
        params["stop_ids"] = [ids[0] for ids in until_thinking]
    else:
        params["stop"] = texts
    request += thinking_start
    tries = 1
    if s["rejection"]:
        while True:
            cont, text, reason = llm.generate(request, **params, anew=True)
            # Deviation: a full context is no reason to accept (there, an assertion fails then).
            if len(cont) <= max_tokens - 1 and reason == "stop":
                break
            if tries == s["tries"]:  # Deviation: there is a limit.
                return (request + cont[: max_tokens - 1])[len(s["prompt"]) :], "length", tries
            tries += 1
    elif s["thinking_n_ignore"] is not None:
        rounds = s["thinking_n_ignore"] + 1
        so_far, cont, text = list(request), [], ""
        for i in range(rounds):
            new, new_text, reason = llm.generate(so_far, **params)
            if reason != "stop" or i == rounds - 1:
                cont, text = cont + new, text + new_text
                break
            for toks in until_thinking:
                if new[-len(toks) :] == toks:
                    new = new[: -len(toks)]
            left = max(max_tokens - len(cont) - len(new), 0)
            if len(so_far) + len(new) + len(s["ignore"][:left]) > llm.max_model_len:
                # Deviation: the string is not written beyond the context.
                return answer(llm, s, so_far + new, [], "context", tries)
            new = new + s["ignore"]
            new_text += "".join(llm.text[id] for id in s["ignore"])
            cont, text, so_far = cont + new, text + new_text, so_far + new
        if len(cont) > max_tokens:
            cont = cont[:max_tokens]
            # Deviation: what was cut ran out, whatever came later, and its text is cut, too.
            reason, text = "length", "".join(llm.text[id] for id in cont)
    else:
        cont, text, reason = llm.generate(request, **params)
    for toks in until_thinking:
        if cont[-len(toks) :] == toks:
            cont = cont[: -len(toks)]
    if reason == "stop":
        closing = thinking_end
    elif text[-1:] == "\n" or llm.text[thinking_start[0]][0] == "\n":
        closing = thinking_end_max
    else:
        closing = newline + thinking_end_max
    return answer(llm, s, request + cont, closing, reason, tries)


def answer(llm, s, request, closing, reason, tries):
    """The last stage, and the deviation that a context without room for it ends the sequence."""
    behind = len(s["prompt"])
    if reason == "context" or len(request) + len(closing) > llm.max_model_len:
        return request[behind:], "context", tries
    request = request + closing
    if len(request) < llm.max_model_len:
        new, _, why = llm.generate(request, s["max_gen_toks"], stop_ids=s["until"])
        request = request + (new[:-1] if why == "stop" else new)
    return request[behind:], reason, tries


def readme(llm, s):
    """The README's loop; ids stay as they are (there, text is put together and tokenised anew)."""
    stop_ids = [ids[0] for ids in s["until_thinking"]]
    prompt = list(s["prompt"]) + s["thinking_start"]
    left = s["max_tokens_thinking"]
    new, _, reason = llm.generate(prompt, left, stop_ids=stop_ids)
    for _ in range(s["thinking_n_ignore"]):
        left -= len(new)
        if left > 0 and reason == "stop":  # only a full context leaves some without a stop
            prompt += new[:-1]
            if len(prompt) + len(s["ignore"]) > llm.max_model_len:  # Deviation: as above.
                return answer(llm, s, prompt, [], "context", 1)
            prompt += s["ignore"]
            new, _, reason = llm.generate(prompt, left, min_tokens=1, stop_ids=stop_ids)
    prompt += new[:-1] if reason == "stop" else new
    return answer(llm, s, prompt, [], reason, 1)


def main():
    identical, first = Counter(), None
    scenarios = 0
    for line in sys.stdin:
        s = json.loads(line)
        scenarios += 1
        ids, closing, tries = (readme if s["readme"] else model_generate)(Model(s), s)
        if s["ours"] == {"ids": ids, "thinking_ending": closing, "tries": tries}:
            identical[s["kind"]] += 1
            identical[closing] += 1
        elif first is None:
            first = {"scenario": s, "theirs": [ids, closing, tries]}
    kinds = dict(sorted(identical.items()))
    print(json.dumps({"scenarios": scenarios, "identical": kinds, "first_difference": first}))


if __name__ == "__main__":
    main()
