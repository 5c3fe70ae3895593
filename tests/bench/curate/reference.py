# s1's filters and its selection in plain Python, as the published rules state them.
"""Usage: python tests/bench/curate/reference.py HELD_OUT.jsonl POOL.parquet...

Sends a pool down the funnel and prints a line of JSON for each stage: its name, its CPU time and
the rows that it dropped (their number in the pool, from 1); then one of the rows selected.

Written from the rules, for clarity, the way a notebook does it: a dict of sets for n-grams, a
thousand substring tests for problem numbers, one sort a draw. The order of the stages is curate's.
"""

import collections
import hashlib
import json
import math
import re
import resource
import sys
import unicodedata

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

FEATURES = ["domain", "isgeminicorrect", "isqwen7bcorrect", "isqwen32bcorrect", "gemini_length"]
NGRAM = 8
TARGET, UNIFORM_UNTIL, LONG_MATH = 1000, 700, 5600
GPQA, AIME, MATH = "Idavidrein/gpqa", "qq8933/AIME_1983_2024", "qfq/openaimath"


def cpu_seconds():
    """CPU time of this process so far."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def read_pool(files):
    """Every row as a dict without its trace: the question, its source, its features."""
    rows = []
    for file in files:
        for batch in pq.ParquetFile(file).iter_batches(batch_size=512):
            traces = pc.fill_null(pc.list_value_length(batch["thinking_trajectories"]), 0)
            answered = pc.and_(pc.greater(traces, 0), pc.is_valid(batch["attempt"]))
            table = pa.Table.from_batches([batch]).select(["question", "source_type", *FEATURES])
            for row, has in zip(table.to_pylist(), answered.to_pylist()):
                rows.append(row | {"answered": has})
    for number, row in enumerate(rows, 1):
        row["row"] = number
        row["hash"] = hashlib.sha256(row["question"].encode()).hexdigest()[:16]
    return rows


def read_held_out(file):
    """The questions of a benchmark."""
    with open(file, encoding="utf-8") as lines:
        return [json.loads(line)["question"] for line in lines]


def word_ngrams(text, n):
    words = re.sub(r"\s+", " ", text.lower().strip()).split(" ")
    return [" ".join(words[at : at + n]) for at in range(len(words) - n + 1)]


def ngram_lookup(texts, n):
    """Which texts have an n-gram."""
    lookup = collections.defaultdict(set)
    for number, text in enumerate(texts):
        for ngram in word_ngrams(text, n):
            lookup[ngram].add(number)
    return lookup


def contaminated(questions, held_out, n=NGRAM):
    """The questions (their numbers, from 0) that share an n-gram with a held-out one."""
    train, test = ngram_lookup(questions, n), ngram_lookup(held_out, n)
    found = set()
    for ngram in test:
        if ngram in train:
            found |= train[ngram]
    return found


def shingles(text, n=3):
    """All runs of n words, markup and punctuation aside, of a text in NFKC; as a list."""
    text = unicodedata.normalize("NFKC", text).lower()
    words = "".join(char if char.isalnum() else " " for char in text).split()
    n = min(n, len(words))
    return [" ".join(words[at : at + n]) for at in range(len(words) - n + 1)] if words else []


def near_duplicates(texts, threshold):
    """The texts (their numbers, from 0) whose shingles have a Jaccard index of at least
    `threshold` with those of an earlier text that is none itself. Exact, by prefix filtering."""
    sets = [frozenset(shingles(text)) for text in texts]
    count = collections.Counter(shingle for of in sets for shingle in of)
    index, found = collections.defaultdict(list), set()
    for number, own in enumerate(sets):
        # Two sets so alike share one of these, the rarest.
        prefix = len(own) - math.ceil(threshold * len(own) - 1e-9) + 1
        rare = sorted(own, key=lambda shingle: (count[shingle], shingle))[:prefix]
        for other in {other for shingle in rare for other in index[shingle]}:
            both = len(own & sets[other])
            if both >= threshold * (len(own) + len(sets[other]) - both) - 1e-9:
                found.add(number)
                break
        else:
            for shingle in rare:
                index[shingle].append(number)
    return found


PROBLEM_NUMBERS = [f"p{number}." for number in range(1, 1000)]
BOLD_BEFORE_DIGIT = re.compile(r"\*\*(?=.*\d)[^\s\]]*\*\*")


def well_formed(question, source_type):
    """Whether no diagram, image or numbering is left over in the text."""
    if "[asy]" in question:
        return "AIME" in source_type
    if "![Image]" in question:
        return False
    if any(number in question for number in PROBLEM_NUMBERS):
        return False
    return not BOLD_BEFORE_DIGIT.search(question)


def is_hard(row):
    return not (row["isqwen7bcorrect"] or row["isqwen32bcorrect"])


class NumpyDraws:
    """Draws as a notebook makes them."""

    def __init__(self, seed):
        self.random = np.random.RandomState(seed)

    def domain(self, domains):
        return domains[self.random.choice(len(domains))]

    def weighted(self, weights):
        domains = sorted(weights)
        shares = np.array([weights[domain] for domain in domains], dtype=float)
        return domains[self.random.choice(len(domains), p=shares / shares.sum())]

    def row(self, rows):
        """One of `rows`: the longest trace with weight 1, the next with 1/2, and so on."""
        longest_first = np.argsort([-row["gemini_length"] for row in rows], kind="stable")
        weights = np.empty(len(rows))
        weights[longest_first] = 0.5 ** np.arange(len(rows))
        return rows[self.random.choice(len(rows), p=weights / weights.sum())]


class CurateDraws:
    """The draws that curate makes, so that its selection can be predicted row for row.

    ChaCha8 under SHA-256 of seed and purpose; record/src/seed.rs and selection.rs say how its bits
    become choices.
    """

    def __init__(self, seed, purpose="selection"):
        part = purpose.encode()
        key = seed.to_bytes(8, "little") + len(part).to_bytes(8, "little") + part
        digest = hashlib.sha256(key).digest()
        self.key = [int.from_bytes(digest[at : at + 4], "little") for at in range(0, 32, 4)]
        self.blocks, self.bits = 0, []

    def block(self):
        start = [0x61707865, 0x3320646E, 0x79622D32, 0x6B206574, *self.key]
        start += [self.blocks & 0xFFFFFFFF, self.blocks >> 32, 0, 0]
        words = list(start)

        def quarter(a, b, c, d):
            for to, by, turned, turn in [(a, b, d, 16), (c, d, b, 12), (a, b, d, 8), (c, d, b, 7)]:
                words[to] = (words[to] + words[by]) & 0xFFFFFFFF
                mixed = words[turned] ^ words[to]
                words[turned] = ((mixed << turn) | (mixed >> (32 - turn))) & 0xFFFFFFFF

        for _ in range(4):
            for column in range(4):
                quarter(column, 4 + column, 8 + column, 12 + column)
            for at in range(4):
                quarter(at, 4 + (at + 1) % 4, 8 + (at + 2) % 4, 12 + (at + 3) % 4)
        self.blocks += 1
        out = [(word + first) & 0xFFFFFFFF for word, first in zip(words, start)]
        return [low | high << 32 for low, high in zip(out[::2], out[1::2])]

    def next(self):
        if not self.bits:
            self.bits = self.block()
        return self.bits.pop(0)

    def below(self, n):
        most = 2**64 - 1
        while (draw := self.next()) >= most - most % n:
            pass
        return draw % n

    def domain(self, domains):
        return domains[self.below(len(domains))]

    def weighted(self, weights):
        left = self.below(sum(weights.values()))
        for domain in sorted(weights):
            if left < weights[domain]:
                return domain
            left -= weights[domain]

    def row(self, rows):
        longest_first = sorted(rows, key=lambda row: (-row["gemini_length"], row["hash"]))
        while (rank := 64 - self.next().bit_length()) >= len(rows):
            pass
        return longest_first[rank]


def is_seeded(row):
    """Taken at once: solved GPQA and AIME, and solved MATH with a long trace."""
    source = row["source_type"]
    known = source in (GPQA, AIME)
    return row["isgeminicorrect"] and (known or MATH in source and row["gemini_length"] > LONG_MATH)


def benchmark_weights(rows):
    """How often phase 3 draws a domain: AIME's rows of it and GPQA's, these half as many in all."""
    gpqa = collections.Counter(row["domain"] for row in rows if row["source_type"] == GPQA)
    aime = collections.Counter(row["domain"] for row in rows if row["source_type"] == AIME)
    scale = 0.5 * sum(aime.values()) / sum(gpqa.values())
    for domain, count in gpqa.items():
        aime[domain] += int(count * scale)
    return {domain: weight for domain, weight in aime.items() if weight > 0}


def select(rows, draws, target=TARGET, uniform_until=UNIFORM_UNTIL):
    """The numbers of the selected rows: the three phases of the published notebook."""
    picked = {row["row"] for row in rows if is_seeded(row)}
    pools = collections.defaultdict(list)
    for row in rows:
        pools[row["domain"]].append(row)
    weights = benchmark_weights(rows)
    while len(picked) < target:
        if len(picked) < uniform_until:
            domain = draws.domain(sorted(pools))
        else:
            domain = draws.weighted(weights)
        row = draws.row(pools[domain])
        picked.add(row["row"])
        pools[domain].remove(row)
        if not pools[domain]:
            del pools[domain]
            weights.pop(domain, None)
    return picked


class Funnel:
    """Who is left, who left where, and what each stage cost."""

    def __init__(self, rows):
        self.rows, self.dropped, self.seconds = rows, {}, {}

    def stage(self, name, verdicts):
        """Runs a stage: `verdicts(rows)` gives one truth a row, and true keeps it."""
        begin = cpu_seconds()
        keep = verdicts(self.rows)
        self.seconds[name] = cpu_seconds() - begin
        self.dropped[name] = [row["row"] for row, kept in zip(self.rows, keep) if not kept]
        self.rows = [row for row, kept in zip(self.rows, keep) if kept]


def first_of_their_text(rows):
    seen = set()
    return [not (row["question"] in seen or seen.add(row["question"])) for row in rows]


def clean(rows, held_out):
    found = contaminated([row["question"] for row in rows], held_out)
    return [number not in found for number in range(len(rows))]


def funnel(rows, held_out, draws):
    """The whole way of a pool, by curate's names of the stages."""
    books = Funnel(rows)
    complete = lambda row: all(row[feature] is not None for feature in FEATURES)
    patterns = lambda row: well_formed(row["question"], row["source_type"])
    books.stage("deduplicate", first_of_their_text)
    books.stage("decontaminate", lambda rows: clean(rows, held_out))
    books.stage("quality: answered", lambda rows: [row["answered"] for row in rows])
    books.stage("quality: complete", lambda rows: [complete(row) for row in rows])
    books.stage("quality: patterns", lambda rows: [patterns(row) for row in rows])
    books.stage("difficulty", lambda rows: [is_hard(row) for row in rows])

    def chosen(rows):
        picked = select(rows, draws)
        return [row["row"] in picked for row in rows]

    books.stage("diversity", chosen)
    return books


def main():
    held_out, *files = sys.argv[1:]
    books = funnel(read_pool(files), read_held_out(held_out), CurateDraws(42))
    for stage, rows in books.dropped.items():
        print(json.dumps({"stage": stage, "cpu_seconds": books.seconds[stage], "rows": rows}))
    print(json.dumps({"stage": "selected", "rows": [row["row"] for row in books.rows]}))


if __name__ == "__main__":
    main()
