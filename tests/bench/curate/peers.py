# The peers' side of compare.py: the same stages in plain Python and in the libraries of others.
"""Usage: python tests/bench/curate/peers.py HELD_OUT.jsonl POOL.parquet...

Reads the pool once. Then every line of standard input names a stage, a key of STAGES, with what it
needs, and is answered by one line of JSON: `cpu_seconds` of that one run, by getrusage, and what
was `found`. Everything runs on one thread.
"""

import gc
import importlib
import json
import os
import sys
import tempfile

os.environ |= {"RAYON_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}

import reference

NGRAM_WORDS = 8
# Of 128 values; 4 values that agree propose a pair.
BANDS = 32


def decontaminate(pool):
    """Plain Python: rows that share an 8-gram with the benchmark."""
    held_out = reference.read_held_out(pool.held_out)
    found = reference.contaminated([row["question"] for row in pool.rows], held_out)
    return [number + 1 for number in sorted(found)]


def patterns(pool):
    """Plain Python: rows whose text is broken."""
    good = reference.well_formed
    return [row["row"] for row in pool.rows if not good(row["question"], row["source_type"])]


def datatrove(pool):
    """datatrove's filter, by words as its spaCy tokenizer cuts them, punctuation kept.

    Its index step needs lighteval, so the index is written here, from the filter's own functions.
    """
    import numpy as np
    from datatrove.data import Document
    from datatrove.pipeline.decont.n_grams import NGramsDecontConfig, NGramsDecontFilter
    from datatrove.utils.text import TextNormConfig, ngrams, simplify_text

    norm = TextNormConfig(
        remove_punctuation=False, norm_unicode_diacritics=False, norm_numbers=False
    )
    config = NGramsDecontConfig(n_grams=NGRAM_WORDS, norm_config=norm)
    with tempfile.TemporaryDirectory() as folder:
        step = NGramsDecontFilter(folder, config)
        hashes = set()
        for question in reference.read_held_out(pool.held_out):
            words = step.tokenizer.word_tokenize(simplify_text(question, norm))
            hashes.update(map(step.hash_func, map(" ".join, ngrams(words, NGRAM_WORDS))))
        index = np.array(list(hashes), dtype=config.hash_config.np_descr)
        index.tofile(f"{folder}/held_out.index.hashes")
        documents = [Document(text=row["question"], id=str(row["row"])) for row in pool.rows]
        return [int(of.id) for of in documents if step.filter(of) is not True]


def near_duplicates(pool, threshold):
    """The truth about them, by comparing exactly."""
    found = reference.near_duplicates([row["question"] for row in pool.rows], float(threshold))
    return [number + 1 for number in sorted(found)]


def rensa(pool, threshold):
    """rensa from texts: shingles made here, signatures and candidates there, in one batch."""
    shingles = [reference.shingles(row["question"]) for row in pool.rows]
    return rensa_flags(shingles, float(threshold))


def rensa_ready(pool, threshold):
    """rensa alone: the shingles are there already."""
    return rensa_flags(pool.shingles(), float(threshold))


def rensa_sketches(pool):
    """rensa's signatures of the ready shingles; how many."""
    return [rensa_matrix(pool.shingles()).len()]


def rensa_matrix(shingles):
    from rensa import RMinHash

    return RMinHash.digest_matrix_from_token_sets(shingles, 128, 42)


def rensa_flags(shingles, threshold):
    from rensa import RMinHashLSH

    matrix = rensa_matrix(shingles)
    flags = RMinHashLSH(threshold, 128, BANDS).insert_matrix_and_query_duplicate_flags(matrix)
    return [number for number, flag in enumerate(flags, 1) if flag]


def datasketch(pool, threshold):
    """datasketch alone: signatures of ready shingles and candidates, one after the other."""
    from datasketch import MinHash, MinHashLSH

    index, sketches, found = MinHashLSH(num_perm=128, params=(BANDS, 128 // BANDS)), {}, []
    sets = ([shingle.encode() for shingle in of] for of in pool.shingles())
    threshold = float(threshold)
    for number, sketch in enumerate(MinHash.generator(sets, num_perm=128), 1):
        near = [of for of in index.query(sketch) if sketches[of].jaccard(sketch) >= threshold]
        if near:
            found.append(number)
        else:
            index.insert(number, sketch)
            sketches[number] = sketch
    return found


def tokens(pool, tokenizer, texts):
    """Hugging Face tokenizers: the length of each text in tokens."""
    encoding = pool.tokenizer(tokenizer).encode_batch_fast(pool.texts(texts))
    return [len(of.ids) for of in encoding]


PLAIN = [decontaminate, patterns, near_duplicates]
IMPORTS = {
    "datasketch": ["datasketch"],
    "datatrove": ["datatrove.pipeline.decont.n_grams", "spacy"],
    "rensa": ["rensa"],
    "rensa_ready": ["rensa"],
    "rensa_sketches": ["rensa"],
}
READY = [rensa_sketches, rensa_ready, datasketch]
LIBRARIES = [datatrove, rensa, *READY, tokens]
STAGES = {stage.__name__: stage for stage in PLAIN + LIBRARIES}


class Pool:
    """What the stages read, kept between runs so that only their work is measured."""

    def __init__(self, held_out, files):
        self.held_out, self.kept = held_out, {}
        self.rows = reference.read_pool(files)

    def keep(self, path, read):
        if path not in self.kept:
            self.kept[path] = read(path)
        return self.kept[path]

    def shingles(self):
        make = lambda _: [reference.shingles(row["question"]) for row in self.rows]
        return self.keep("shingles", make)

    def tokenizer(self, path):
        from tokenizers import Tokenizer

        return self.keep(path, Tokenizer.from_file)

    def texts(self, path):
        read = lambda path: [json.loads(line) for line in open(path, encoding="utf-8")]
        return self.keep(path, read)


def main():
    held_out, *files = sys.argv[1:]
    pool = Pool(held_out, files)
    for line in sys.stdin:
        name, *needs = line.split()
        for library in IMPORTS.get(name, []):
            importlib.import_module(library)
        if name == "tokens":
            pool.tokenizer(needs[0]), pool.texts(needs[1])
        if STAGES[name] in READY:
            pool.shingles()
        # What was read before is not looked through again by the collector during the stage.
        gc.collect()
        gc.freeze()
        begin = reference.cpu_seconds()
        found = STAGES[name](pool, *needs)
        seconds = reference.cpu_seconds() - begin
        print(json.dumps({"cpu_seconds": seconds, "found": found}), flush=True)


if __name__ == "__main__":
    main()
