"""Reads the TensorBoard event files of a folder and prints every scalar as JSON.

    python tests/oracle/tensorboard_reads.py FOLDER

Prints {tag: [[step, value], …]}, tags in sorted order, as TensorBoard's own reader sees them.
"""

import json
import sys

from tensorboard.backend.event_processing.event_accumulator import SCALARS, EventAccumulator


def main(folder):
    events = EventAccumulator(folder, size_guidance={SCALARS: 0})  # 0: keep every value
    events.Reload()
    tags = events.Tags()
    # Scalars written as tensors show in some readers only.
    if tags["tensors"]:
        sys.exit(f"error: {folder} holds tensor summaries, not scalars: {tags['tensors']}")
    scalars = {tag: [[e.step, e.value] for e in events.Scalars(tag)] for tag in tags["scalars"]}
    print(json.dumps(scalars, indent=2, sort_keys=True))


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(sys.argv[1])
