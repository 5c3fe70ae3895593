# Reads the folder of an `infer eval` with lm-evaluation-harness's own code: lm_eval_reads.py FOLDER
# Its table, its names of files, its metadata card with `load_dataset`, and its hashes; prints what
# it found as JSON, for tests/oracle.rs to compare.
import contextlib
import json
import os
import sys
import tempfile
from pathlib import Path

cache = tempfile.TemporaryDirectory()
os.environ["HF_DATASETS_CACHE"] = cache.name

import huggingface_hub
from lm_eval import utils
from lm_eval.loggers import EvaluationTracker, evaluation_tracker

folder = Path(sys.argv[1]).resolve()
files = [f"{folder.name}/{path.name}" for path in sorted(folder.iterdir()) if path.is_file()]


def local(repo_id, filename, repo_type):
    return str(folder.parent / filename)


class Hub:
    # What the tracker asks of the hub, answered from the folder.
    def list_repo_files(self, repo_id, repo_type):
        return files


class Card:
    # What the tracker would push.
    pushed = None

    @classmethod
    def from_template(cls, card_data, **text):
        cls.pushed = card_data.to_dict()
        return cls()

    def push_to_hub(self, *_, **__):
        pass


huggingface_hub.hf_hub_url, huggingface_hub.DatasetCard = local, Card
with contextlib.redirect_stdout(sys.stderr):
    tracker = EvaluationTracker(hub_repo_name="ours")
    tracker.api = Hub()
    tracker.recreate_metadata_card()
    results_file = utils.get_latest_filename(utils.get_results_filenames(files))
    results = json.loads((folder.parent / results_file).read_text(encoding="utf-8"))
    table = utils.make_table(results)
    loaded = {}
    for name in utils.get_sample_results_filenames(files):
        task = utils.get_file_task_name(Path(name).name)
        rows = evaluation_tracker.load_dataset(
            "json", data_files=local("", name, ""), split="train"
        )
        raw = [json.loads(line) for line in open(folder.parent / name, encoding="utf-8")]
        dump = lambda doc: json.dumps(doc, indent=2, ensure_ascii=False)
        loaded[task] = {
            "rows": len(rows),
            "datetime": utils.get_file_datetime(Path(name).name),
            "exact_match": sum(rows["exact_match"]) / len(rows),
            "thinking_tokens": sum(map(sum, rows["thinking_tokens"])),
            "doc_hashes": sum(r["doc_hash"] == utils.hash_string(dump(r["doc"])) for r in raw),
            "prompt_hashes": sum(
                r["prompt_hash"] == utils.hash_string(r["arguments"]["gen_args_0"]["arg_0"])
                for r in raw
            ),
            "target_hashes": sum(r["target_hash"] == utils.hash_string(r["target"]) for r in raw),
            "task_hash": utils.hash_string(
                "".join(r["doc_hash"] + r["prompt_hash"] + r["target_hash"] for r in raw)
            )
            == results["task_hashes"][task],
        }
data = Card.pushed
print(
    json.dumps(
        {
            "results_datetime": utils.get_file_datetime(Path(results_file).name),
            "results": results["results"],
            "samples": loaded,
            "table": table,
            "card": sorted(config["config_name"] for config in data["configs"]),
        }
    )
)
