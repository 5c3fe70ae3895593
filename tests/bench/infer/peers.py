# A peer of the engine benchmark: loads a model once, then writes on demand; see compare.py.
"""peers.py NAME MODEL SLOTS: reads {"prompts": [[id]], "tokens": n} a line, answers with
{"cpu_seconds": s, "ids": [[id]]}. One thread each; CPU time of the whole process."""

import concurrent.futures
import json
import sys
import time


class Transformers:
    def __init__(self, model, slots, kind="float32"):
        import torch
        from transformers import AutoModelForCausalLM

        torch.set_num_threads(1)
        self.torch = torch
        self.model = AutoModelForCausalLM.from_pretrained(model, dtype=getattr(torch, kind)).eval()

    def write(self, prompts, tokens):
        ids = self.torch.tensor(prompts)
        with self.torch.no_grad():
            written = self.model.generate(
                ids, attention_mask=self.torch.ones_like(ids), max_new_tokens=tokens,
                min_new_tokens=tokens, do_sample=False, repetition_penalty=1.0,
                temperature=None, top_p=None, top_k=None, pad_token_id=0,
            )
        return written[:, ids.shape[1]:].tolist()


class LlamaCpp:
    """llama.cpp's server inside this process, a slot for each prompt. It tells no ids unless log-
    probabilities are reckoned as well, which would cost it time."""

    def __init__(self, model, slots):
        import xllamacpp

        params = xllamacpp.CommonParams()
        params.model.path = model
        params.n_ctx = 512 * slots
        params.n_parallel = slots
        params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
        params.cache_prompt = False
        params.warmup = True
        params.verbosity = 0
        self.server = xllamacpp.Server(params)
        self.pool = concurrent.futures.ThreadPoolExecutor(slots)

    def write(self, prompts, tokens):
        def one(prompt):
            reply = self.server.handle_completions({
                "prompt": prompt, "max_tokens": tokens, "temperature": 0.0, "cache_prompt": False,
                "ignore_eos": True, "stream": False,
            })
            reply = reply[0] if isinstance(reply, list) else reply
            if "error" in reply:
                sys.exit(f"llama.cpp: {reply}")
            written = reply["usage"]["completion_tokens"]
            if written != tokens:
                sys.exit(f"llama.cpp wrote {written} tokens instead of {tokens}")
            return []

        return list(self.pool.map(one, prompts))


class OpenVino:
    def __init__(self, model, slots):
        import numpy
        import openvino
        import openvino_genai

        scheduler = openvino_genai.SchedulerConfig()
        scheduler.cache_size = 1
        scheduler.max_num_seqs = slots
        scheduler.enable_prefix_caching = False
        hints = {"INFERENCE_NUM_THREADS": 1, "INFERENCE_PRECISION_HINT": "f32"}
        self.pipe = openvino_genai.ContinuousBatchingPipeline(model, scheduler, "CPU", hints)
        self.genai, self.numpy, self.openvino = openvino_genai, numpy, openvino

    def write(self, prompts, tokens):
        config = self.genai.GenerationConfig()
        config.max_new_tokens = config.min_new_tokens = tokens
        config.ignore_eos = True
        config.do_sample = False
        tensors = [self.openvino.Tensor(self.numpy.array([ids], dtype="int64")) for ids in prompts]
        results = self.pipe.generate(tensors, [config] * len(prompts))
        return [list(result.m_generation_ids[0]) for result in results]


SIDES = {
    "transformers": Transformers,
    "llama.cpp": LlamaCpp,
    "openvino": OpenVino,
}


def main():
    name, model, slots = sys.argv[1:]
    out = sys.stdout
    sys.stdout = sys.stderr  # libraries talk
    side = SIDES[name](model, int(slots))
    for line in sys.stdin:
        ask = json.loads(line)
        start = time.process_time()
        ids = side.write(ask["prompts"], ask["tokens"])
        seconds = time.process_time() - start
        print(json.dumps({"cpu_seconds": seconds, "ids": ids}), file=out, flush=True)


if __name__ == "__main__":
    main()
