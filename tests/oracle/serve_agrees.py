# The official openai client and lm-eval's local-completions against `infer serve`: every kind of
# request and error, forced thinking, and prompts' log-probabilities beside transformers'.
"""Run as `serve_agrees.py INFER MODEL [--lm-eval]`; see `just oracle-serve`."""

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

import openai

CONFIG = """
seed = 1
[model]
path = {model}
device = "cpu"
dtype = "float32"
max_model_len = 512
[engine]
slots = 8
[server]
address = "127.0.0.1:0"
name = "s1"
[generation]
max_gen_toks = 24
until = ["<|im_end|>", "<|endoftext|>"]
"""

checks = 0


def check(what, holds, shown=""):
    """One thing that has to be so."""
    global checks
    checks += 1
    if not holds:
        sys.exit(f"not so: {what} {shown}")


def refused(what, kind, call, part):
    """A call that the server has to refuse."""
    try:
        call()
    except kind as error:
        check(f"{what}: the reason", part in str(error), str(error))
    else:
        sys.exit(f"not refused: {what}")


def chats(client):
    """Conversations, plain and in pieces, with and without forced thinking."""

    def ask(text="What is 6 times 7?", body=None, **more):
        messages = [{"role": "user", "content": text}]
        return client.chat.completions.create(
            model="s1", messages=messages, temperature=0, extra_body=body, **more
        )

    plain = ask()
    message = plain.choices[0].message
    check("there is an answer", message.content)
    check("the same again", ask().choices[0].message.content == message.content)
    check("nothing forced", plain.usage.completion_tokens_details.reasoning_tokens == 0)
    check("usage", plain.usage.total_tokens == plain.usage.prompt_tokens + plain.usage.completion_tokens)
    for budget in (0, 1, 16):
        body = {"max_thinking_tokens": budget, "num_ignore": 1, "ignore_str": "Wait"}
        reply = ask(body=body, max_completion_tokens=8)
        details = reply.usage.completion_tokens_details
        check("the budget holds", details.reasoning_tokens <= budget, str(details))
        check("forced tokens are counted", details.model_extra["forced_tokens"] > 0, str(details))
        thinking = reply.choices[0].message.model_extra["reasoning_content"]
        check("thinking is apart", bool(thinking) == (budget > 0), repr(thinking))
        pieces = list(
            ask(body=body, max_completion_tokens=8, stream=True, stream_options={"include_usage": True})
        )
        check("usage comes last", pieces[-1].usage == reply.usage, str(pieces[-1]))
        deltas = [piece.choices[0].delta for piece in pieces if piece.choices]
        text = "".join(delta.content or "" for delta in deltas)
        check("the answer in pieces", text == reply.choices[0].message.content, text)
        reasoning = "".join(delta.model_extra.get("reasoning_content") or "" for delta in deltas)
        check("the thinking in pieces", reasoning == (thinking or ""), reasoning)
        check("why it ended", pieces[-2].choices[0].finish_reason == reply.choices[0].finish_reason)
    least = ask(body={"min_thinking_tokens": 12, "max_thinking_tokens": 12}, max_tokens=4)
    check("a minimum", least.usage.completion_tokens_details.reasoning_tokens == 12)
    three = ask(n=3, seed=5, max_tokens=6)
    check("three choices", [choice.index for choice in three.choices] == [0, 1, 2])
    drawn = {"temperature": 1.0, "seed": 7}
    texts = [
        client.chat.completions.create(
            model="s1", messages=[{"role": "user", "content": "Hi"}], max_tokens=8, **drawn
        ).choices[0].message.content
        for _ in range(2)
    ]
    check("a seed", texts[0] == texts[1])
    scored = ask(logprobs=True, top_logprobs=3, max_tokens=4).choices[0].logprobs.content
    check("log-probabilities", len(scored) >= 4 and len(scored[0].top_logprobs) == 3)
    check("greedy", all(row.logprob == row.top_logprobs[0].logprob for row in scored))
    stopped = ask(stop=[message.content[1:4]]).choices[0]
    check("a stop text", stopped.finish_reason == "stop" and message.content[1:4] not in stopped.message.content)
    messages = [
        {"role": "system", "content": "You are terse."},
        {"role": "user", "content": "Name a colour."},
        {"role": "assistant", "content": "Blue."},
        {"role": "user", "content": [{"type": "text", "text": "Another."}]},
    ]
    reply = client.chat.completions.create(model="s1", messages=messages, max_tokens=4)
    check("a longer conversation", reply.choices[0].message.content)
    bad = openai.BadRequestError
    refused("a template", bad, lambda: ask(body={"chat_template": "{{ 1 }}"}), "template")
    kwargs = {"chat_template_kwargs": {"chat_template": "x"}}
    refused("a nested template", bad, lambda: ask(body=kwargs), "template")
    refused("an unknown field", bad, lambda: ask(body={"max_thinking": 1}), "max_thinking")
    refused("a long prompt", bad, lambda: ask("word " * 600), "maximum context length")
    refused("too hot", bad, lambda: client.completions.create(model="s1", prompt="a", temperature=-1), "temperature")
    other = lambda: client.completions.create(model="gpt-4", prompt="a")
    refused("another model", openai.NotFoundError, other, "gpt-4")


def texts(client):
    """Texts to go on with."""

    def ask(prompt="The capital of France is", **more):
        return client.completions.create(model="s1", prompt=prompt, temperature=0, **more)

    one = ask(max_tokens=6)
    check("a text", one.choices[0].text and one.usage.completion_tokens == 6)
    check("sixteen by default", ask().usage.completion_tokens <= 16)
    many = ask(["One, two,", "Red, green,"], max_tokens=3)
    check("prompts in their order", [choice.index for choice in many.choices] == [0, 1])
    pieces = list(ask(max_tokens=6, stream=True))
    check("in pieces", "".join(piece.choices[0].text for piece in pieces) == one.choices[0].text)
    ids = ask(max_tokens=6, extra_body={"return_token_ids": True})
    again = ask(ids.choices[0].model_extra["token_ids"], max_tokens=2)
    check("ids as a prompt", again.usage.prompt_tokens == 6)
    echo = ask(max_tokens=1, logprobs=1, echo=True).choices[0]
    check("an echo", echo.text.startswith("The capital"))
    check("the first has no score", echo.logprobs.token_logprobs[0] is None)
    names = [model.id for model in client.models.list()]
    check("models", names == ["s1"] and client.models.retrieve("s1").id == "s1")
    with client.completions.create(model="s1", prompt="a", max_tokens=400, stream=True) as stream:
        next(iter(stream))
    check("broken off, it answers", ask(max_tokens=1).choices)


def lm_eval(url, model):
    """lm-eval's own client: log-likelihoods beside transformers', and generations."""
    import torch
    from lm_eval.api.instance import Instance
    from lm_eval.models.openai_completions import LocalCompletionsAPI
    from transformers import AutoModelForCausalLM, AutoTokenizer

    theirs = LocalCompletionsAPI(
        base_url=f"{url}/completions", model="s1", tokenizer=model, tokenizer_backend="huggingface",
        max_length=512, num_concurrent=2, batch_size=2,
    )
    tokenizer = AutoTokenizer.from_pretrained(model)
    weights = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    pairs = [
        ("The capital of France is", " Paris"),
        ("The capital of France is", " a large wooden table"),
        ("2 + 2 =", " 4"),
        ("Once upon a time", ", there was a king"),
    ]
    requests = [Instance("loglikelihood", {}, pair, n) for n, pair in enumerate(pairs)]
    ours = theirs.loglikelihood(requests)
    worst = 0.0
    for (context, answer), (sum_, greedy) in zip(pairs, ours):
        ids = tokenizer(context + answer, return_tensors="pt").input_ids
        start = len(tokenizer(context).input_ids)
        with torch.no_grad():
            logprobs = weights(ids).logits[0].double().log_softmax(-1)
        rows = logprobs[start - 1 : -1]
        expected = rows.gather(1, ids[0, start:, None]).sum().item()
        worst = max(worst, abs(expected - sum_))
        check("greedy", greedy == bool((rows.argmax(-1) == ids[0, start:]).all()), context)
    check("log-likelihoods", worst < 1e-3, str(worst))
    kwargs = {"until": ["\n"], "max_gen_toks": 8, "do_sample": False, "temperature": 0}
    texts = theirs.generate_until(
        [Instance("generate_until", {}, (context, dict(kwargs)), n) for n, (context, _) in enumerate(pairs)]
    )
    for (context, _), text in zip(pairs, texts):
        ids = tokenizer(context, return_tensors="pt").input_ids
        with torch.no_grad():
            out = weights.generate(ids, max_new_tokens=8, do_sample=False, temperature=None, top_p=None, top_k=None, repetition_penalty=1.0)
        expected = tokenizer.decode(out[0, ids.shape[1] :], skip_special_tokens=True).split("\n")[0]
        check("a generation", text == expected, f"{text!r} {expected!r}")
    print(f"lm-eval: {len(pairs)} log-likelihoods, worst difference {worst:.1e}; generations equal")


def main():
    """Starts the server, runs all checks, stops it."""
    arguments = argparse.ArgumentParser()
    arguments.add_argument("infer")
    arguments.add_argument("model")
    arguments.add_argument("--lm-eval", action="store_true")
    arguments = arguments.parse_args()
    folder = Path("runs/oracle-serve")
    folder.mkdir(parents=True, exist_ok=True)
    config = folder / "serve.toml"
    config.write_text("# written by serve_agrees.py\n" + CONFIG.format(model=json.dumps(arguments.model)))
    server = subprocess.Popen([arguments.infer, "serve", config], stdout=subprocess.PIPE, text=True)
    try:
        url = server.stdout.readline().split()[0]
        client = openai.OpenAI(base_url=url, api_key="none", max_retries=0, timeout=300)
        begun = time.time()
        chats(client)
        texts(client)
        print(f"openai {openai.__version__}: {checks} checks in {time.time() - begun:.0f} s, all hold")
        if arguments.lm_eval:
            lm_eval(url, arguments.model)
    finally:
        server.terminate()
        server.wait(30)
    check("it ends by itself when told to", server.returncode == 0)


main()
