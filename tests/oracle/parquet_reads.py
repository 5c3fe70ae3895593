# Opens a Parquet file of ours in pyarrow and in datasets and compares it with the rows it holds.
"""Usage: python tests/oracle/parquet_reads.py FILE.parquet ROWS.jsonl SCHEMA

ROWS.jsonl holds the expected rows, one object a line; SCHEMA the expected columns in order, as
`name:type,name:type`. Exits with 1 and a message when anything differs.
"""

import json
import os
import sys
import tempfile

scratch = tempfile.TemporaryDirectory()
os.environ["HF_HOME"] = scratch.name
os.environ["HF_HUB_OFFLINE"] = "1"

import datasets
import pandas as pd
import polars as pl
import pyarrow.parquet as pq

# What an Arrow type is called among the features of a data set.
FEATURES = {
    "null": datasets.Value("null"),
    "string": datasets.Value("string"),
    "bool": datasets.Value("bool"),
    "int64": datasets.Value("int64"),
    "list<element: string>": datasets.List(datasets.Value("string")),
}


def expect(what, got, wanted):
    if got != wanted:
        sys.exit(f"{what}: got {got!r}, expected {wanted!r}")


def main(file, rows_file, schema):
    with open(rows_file, encoding="utf-8", newline="\n") as lines:
        rows = [json.loads(line) for line in lines]
    columns = [tuple(column.split(":", 1)) for column in schema.split(",")]

    table = pq.read_table(file)
    expect("pyarrow schema", [(f.name, str(f.type)) for f in table.schema], columns)
    expect("pyarrow rows", table.to_pylist(), rows)

    loaded = datasets.load_dataset(
        "parquet", data_files=file, split="train", cache_dir=scratch.name
    )
    expect("datasets features", dict(loaded.features), {n: FEATURES[t] for n, t in columns})
    expect("datasets rows", list(loaded), rows)

    expect("polars rows", pl.read_parquet(file).to_dicts(), rows)
    expect("pandas columns", list(pd.read_parquet(file).columns), [name for name, _ in columns])
    print(f"{len(rows)} rows read alike by pyarrow, datasets, polars and pandas")


main(*sys.argv[1:])
