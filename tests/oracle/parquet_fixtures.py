# Record's fixtures, made with datasets 5.2.0, pandas 3.1.1, polars 2.1.0, pyarrow 26.0.1.
"""The same three questions as other tools write them, into curate/record/tests/fixtures/; Rust
reads each file and expects the same rows.

Usage: python tests/oracle/parquet_fixtures.py   (from the root of the repository)
"""

import os
import tempfile
from pathlib import Path

os.environ["HF_HOME"] = tempfile.mkdtemp()
os.environ["HF_HUB_OFFLINE"] = "1"

import datasets
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

FOLDER = Path("curate/record/tests/fixtures")

# The second row has everything null that may be null; the third has a line separator in its text.
COLUMNS = {
    "solution": ["It is 4.", None, "x\u2028y"],
    "question": ["What is 2+2?", "How many r in raspberry", "naïve – 多少?"],
    "cot_type": ["math", "english", "science"],
    "source_type": ["qfq/quant", "Idavidrein/gpqa", "qfq/quant"],
    "metadata": ["{'level': 5}", "{}", "None"],
    "cot": [None, None, None],
    "thinking_trajectories": [["Two and two."], ["r, r, r"], ["first\n", "second"]],
    "attempt": ["Answer: 4", None, "Answer: 7"],
    "domain": ["Number theory", None, "Geometry"],
    "isgeminicorrect": [True, None, False],
    "isqwen7bcorrect": [False, None, False],
    "isqwen32bcorrect": [False, False, True],
    "gemini_length": [120, None, 31000],
}
STRINGS = ["solution", "question", "cot_type", "source_type", "metadata", "attempt", "domain"]
LISTS = ["thinking_trajectories"]


def table(string, list_=pa.list_, integer=pa.int64(), boolean=pa.bool_()):
    """COLUMNS as an Arrow table with these types."""
    types = {name: string for name in STRINGS} | {name: list_(string) for name in LISTS}
    types |= {"cot": pa.null(), "gemini_length": integer}
    types |= {name: boolean for name in COLUMNS if name.startswith("is")}
    return pa.table({name: pa.array(values, types[name]) for name, values in COLUMNS.items()})


def dictionary():
    """Strings as dictionaries, inside lists too."""
    columns = table(pa.string())
    arrays = [
        column.cast(pa.dictionary(pa.int32(), pa.string())) if name in STRINGS else column
        for name, column in zip(columns.column_names, columns.columns)
    ]
    return pa.table(arrays, columns.column_names)


def datasets_file(path):
    datasets.Dataset.from_dict(COLUMNS).to_parquet(path)


def pandas_file(path):
    # Nullable integers become floats with NaN, as they do in any frame read from CSV or JSON.
    pd.DataFrame(COLUMNS).to_parquet(path)


def pandas_category_file(path):
    frame = pd.DataFrame(COLUMNS)
    for name in ["cot_type", "source_type", "domain"]:
        frame[name] = frame[name].astype("category")
    frame.to_parquet(path, compression="gzip")


def polars_file(path):
    pl.DataFrame(COLUMNS).write_parquet(path)


def polars_categorical_file(path):
    pl.DataFrame(COLUMNS).with_columns(pl.col("source_type").cast(pl.Categorical)).write_parquet(
        path, compression="snappy"
    )


def old_spellings():
    """The columns as older feature tables of the authors spell them, with 32-bit lengths."""
    names = {"isgeminicorrect": "isgenminicorrect", "gemini_length": "genmini_length"}
    columns = table(pa.string(), integer=pa.int32())
    return columns.rename_columns([names.get(name, name) for name in columns.column_names])


def binary():
    """Strings that lack Parquet's mark for strings, as some writers leave them."""
    columns = table(pa.string())
    arrays = [
        column.cast(pa.binary()) if name in STRINGS else column
        for name, column in zip(columns.column_names, columns.columns)
    ]
    return pa.table(arrays, columns.column_names)


def s1k_11():
    """The columns of s1K-1.1: two teachers, traces as plain strings, grades."""
    columns = {name: COLUMNS[name] for name in STRINGS if name not in ["attempt", "domain"]}
    for teacher in ["gemini", "deepseek"]:
        columns |= {
            f"{teacher}_thinking_trajectory": [f"{teacher} thinks {i}" for i in range(3)],
            f"{teacher}_attempt": [f"{teacher} answers {i}" for i in range(3)],
            f"{teacher}_grade": ["Yes", "No", "Yes"],
            f"{teacher}_grade_reason": ["same", "differs", "same"],
        }
    return pa.table(columns)


def only_a_question():
    """Nothing but questions, among columns that mean nothing here."""
    return pa.table({
        "id": pa.array([1, 2, 3]),
        "question": COLUMNS["question"],
        "nested": [{"a": [1, 2]}, {"a": []}, None],
        "when": pa.array([0, 1, 2], pa.timestamp("ns")),
    })


def repeated():
    """2,200 rows share one value of 1 MB: small in the file, 2.2 GB for a careless reader."""
    text = "long " * 200_000
    return pa.table({"question": pa.array([text] * 2200)})


def null_question():
    return pa.table({"question": [str(i) for i in range(16)] + [None, "17"]})


def write_conversations():
    """Columns `messages` of lists of {role, content}, and three that are none."""
    def message(role, content, **more):
        return {"role": role, "content": content, **more}

    rows = [
        [message("user", "What is 2+2?"), message("assistant", "4\u2028")],
        [message("system", "Be kind."), message("user", "<|im_end|>"), message("assistant", ""),
         message("user", "多少?")],
        [],
    ]
    columns = {"id": [1, 2, 3], "messages": rows}
    datasets.Dataset.from_dict(columns).to_parquet(FOLDER / "messages_datasets.parquet")
    null, text = message("user", None), pa.large_string()
    large = pa.large_list(pa.struct({"content": text, "role": text, "name": text}))
    for name, messages in {
        "pyarrow": pa.array(rows, large),
        "null": pa.array([rows[0], [null]]),
        "tools": pa.array([[message("user", "q", name="Ann")]]),
        "of_texts": pa.array([["q", "a"]]),
    }.items():
        pq.write_table(pa.table({"messages": messages}), FOLDER / f"messages_{name}.parquet")


def main():
    FOLDER.mkdir(parents=True, exist_ok=True)
    datasets_file(FOLDER / "datasets.parquet")
    pandas_file(FOLDER / "pandas.parquet")
    pandas_category_file(FOLDER / "pandas_category_gzip.parquet")
    polars_file(FOLDER / "polars.parquet")
    polars_categorical_file(FOLDER / "polars_categorical_snappy.parquet")
    arrow = {
        "string_zstd": (table(pa.string()), "zstd"),
        "large_string": (table(pa.large_string(), pa.large_list), "none"),
        "string_view": (table(pa.string_view()), "zstd"),
        "dictionary": (dictionary(), "snappy"),
        "float_length": (table(pa.string(), integer=pa.float64()), "zstd"),
        "binary": (binary(), "snappy"),
        "old_spellings": (old_spellings(), "snappy"),
        "s1k_11": (s1k_11(), "snappy"),
        "only_a_question": (only_a_question(), "snappy"),
        "null_question": (null_question(), "snappy"),
        "repeated": (repeated(), "zstd"),
        "text_length": (table(pa.string()).set_column(
            12, "gemini_length", pa.array(["120", None, "31000"])), "snappy"),
        "half_length": (table(pa.string()).set_column(
            12, "gemini_length", pa.array([1.5, None, 2.0])), "snappy"),
    }
    for name, (columns, compression) in arrow.items():
        pq.write_table(columns, FOLDER / f"{name}.parquet", compression=compression)
    write_conversations()


main()
