# Compares our grader with Math-Verify on rows with a known verdict: precision, recall and speed.
"""Usage: python tests/oracle/grades_agree.py [--sample N] GRADE ROWS.jsonl...

GRADE is the release build of our `grade`. A row has `pred` and `gold` with `equal`, or `output` and
`gold` with `origin.verdict`; rows without a verdict are left out. Math-Verify gets what serves it
best: whole texts as they are and bare answers in dollar signs, and the extraction targets, rounding
and strictness that a row names. Only our program reads every row the same way.

Speed is measured in five alternating rounds on one core, over N rows (200 unless told) of each
file. Math-Verify's time is the CPU time of its calls, without imports and after a first round that
does not count. Ours is the CPU time of whole processes, start, JSON and extraction included, over
the same rows 20 times.
"""

import json
import logging
import os
import random
import resource
import statistics
import subprocess
import sys
import time
import warnings

from math_verify import ExprExtractionConfig, LatexExtractionConfig, StringExtractionConfig
from math_verify import parse, verify

ROUNDS, COPIES = 5, 20
TARGETS = {
    "latex": LatexExtractionConfig(),
    "expr": ExprExtractionConfig(),
    "string": StringExtractionConfig(),
}


def load(file):
    """The rows of a file that carry a verdict, each with it under `truth`."""
    rows = []
    with open(file, encoding="utf-8", newline="\n") as lines:
        for row in map(json.loads, lines):
            truth = row.get("equal")
            if "output" in row:
                truth = row["origin"]["verdict"]
            if truth is not None:
                rows.append(dict(row, truth=truth))
    return rows


def delimited(text):
    """A bare answer as the formula that Math-Verify's documentation asks for."""
    marked = any(mark in text for mark in ("$", "\\(", "\\[", "\\boxed"))
    return text if marked else f"${text}$"


def theirs(row):
    """Math-Verify's verdict."""
    options, targets = {}, [TARGETS["latex"], TARGETS["expr"]]
    given, gold = row.get("output", row.get("pred")), row["gold"]
    if row.get("match_types"):
        targets = [TARGETS[name] for name in row["match_types"]]
        config = row.get("config") or {}
        if "precision" in config:
            options["float_rounding"] = config["precision"]
        if "strict" in config:
            options["strict"] = config["strict"]
    else:
        given, gold = given if "output" in row else delimited(given), delimited(gold)
    parsed_gold = parse(gold, extraction_config=targets)
    return verify(parsed_gold, parse(given, extraction_config=targets), **options)


def ours(grade, rows):
    """Our verdicts, and the CPU seconds of the process that gave them."""
    keys = ("pred", "output", "gold")
    lines = "".join(json.dumps({k: row[k] for k in keys if k in row}) + "\n" for row in rows)
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run([grade], input=lines.encode(), stdout=subprocess.PIPE, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return [json.loads(line)["equal"] for line in done.stdout.splitlines()], seconds


def scores(truth, verdicts):
    """Agreement, precision and recall as a line of a table."""
    both = sum(t and v for t, v in zip(truth, verdicts))
    agreed = sum(t == v for t, v in zip(truth, verdicts))
    share = lambda part, whole: f"{100 * part / whole:7.2f}" if whole else "      -"
    return "  ".join((share(agreed, len(truth)), share(both, sum(verdicts)), share(both, sum(truth))))


def speed(grade, rows):
    """Rows a second of both, round by round."""
    many = rows * COPIES
    found = []
    for warm in range(ROUNDS + 1):
        start = time.process_time()
        for row in rows:
            theirs(row)
        their_rate = len(rows) / (time.process_time() - start)
        our_rate = len(many) / ours(grade, many)[1]
        if warm:
            found.append((their_rate, our_rate))
    return found


def main(arguments):
    sample = 200
    if arguments[0] == "--sample":
        sample, arguments = int(arguments[1]), arguments[2:]
    grade, files = os.path.abspath(arguments[0]), arguments[1:]
    logging.disable(logging.CRITICAL)
    warnings.simplefilter("ignore")
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    print("per cent                                    rows  grader       agreed  precision  recall")
    for file in files:
        rows = load(file)
        truth = [row["truth"] for row in rows]
        name = f"{os.path.basename(file):<40} {len(rows):>7}"
        print(f"{name}  ours         {scores(truth, ours(grade, rows)[0])}")
        print(f"{'':48}  Math-Verify  {scores(truth, [bool(theirs(row)) for row in rows])}", flush=True)
    print("rows a second                               rows       ours  Math-Verify  ratio  (lowest)")
    for file in files:
        rows = load(file)
        rows = random.Random(0).sample(rows, min(sample, len(rows)))
        rates = speed(grade, rows)
        ratios = [our_rate / their_rate for their_rate, our_rate in rates]
        their_rate, our_rate = (statistics.median(side) for side in zip(*rates))
        ratio = f"{statistics.median(ratios):>7.0f}  ({min(ratios):.0f})"
        name = f"{os.path.basename(file):<40} {len(rows):>7}"
        print(f"{name} {our_rate:>10.0f} {their_rate:>12.1f} {ratio}", flush=True)


main(sys.argv[1:])
