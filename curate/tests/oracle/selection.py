# Selection frequencies by a NumPy version of s1's data/filter.ipynb, cells 14 to 21; job on stdin.
import json
import sys
from collections import Counter

import numpy as np


def select(rows, target, uniform_until, random):
    chosen = set()
    for hash, row in rows.items():
        if row["correct"]:
            if row["source_type"] in ("gpqa", "aime"):
                chosen.add(hash)
            elif "math/" in row["source_type"] and row["length"] > 5600:
                chosen.add(hash)

    def domains_of(source):
        return Counter(row["domain"] for row in rows.values() if row["source_type"] == source)

    gpqa, aime = domains_of("gpqa"), domains_of("aime")
    enlarge = 0.5 * sum(aime.values()) / sum(gpqa.values())
    for domain in gpqa:
        gpqa[domain] = int(gpqa[domain] * enlarge)
    benchmark = gpqa + aime
    names, weights = list(benchmark), np.array(list(benchmark.values()), dtype=float)

    domains = sorted({row["domain"] for row in rows.values()})
    left = {d: [h for h in sorted(rows) if rows[h]["domain"] == d] for d in domains}
    while len(chosen) < target:
        if len(chosen) < uniform_until or not names:
            domain = domains[random.integers(len(domains))]
        else:
            domain = names[random.choice(len(names), p=weights / weights.sum())]
        hashes = left[domain]
        # Longest first, equal lengths by hash: the one tie rule added to the original's.
        order = sorted(range(len(hashes)), key=lambda i: (-rows[hashes[i]]["length"], hashes[i]))
        ranks = np.empty(len(hashes))
        ranks[order] = np.arange(len(hashes))
        by_length = np.power(2.0, -ranks)
        pick = hashes[random.choice(len(hashes), p=by_length / by_length.sum())]
        chosen.add(pick)
        hashes.remove(pick)
        if not hashes:
            domains.remove(domain)
            if domain in names:
                weights = np.delete(weights, names.index(domain))
                names.remove(domain)
    return chosen


job = json.load(sys.stdin)
rows = {row["hash"]: row for row in job["rows"]}
count = Counter()
for seed in range(job["seeds"]):
    random = np.random.default_rng(seed)
    count.update(select(rows, job["target"], job["uniform_until"], random))
json.dump({hash: count[hash] / job["seeds"] for hash in rows}, sys.stdout)
