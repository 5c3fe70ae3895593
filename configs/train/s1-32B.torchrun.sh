#!/bin/bash
# s1-32B by torchrun, two nodes of eight GPUs: the same line on both, NODE_RANK 0 and 1.
#
#   MASTER_ADDR=node0 NODE_RANK=0 configs/train/s1-32B.torchrun.sh [more of train run]
#
# Both need `cargo build --workspace --release` first, and see the output folder. MASTER_ADDR is
# node 0 as both see it. NODES, GPUS (a node's processes), MASTER_PORT and CONFIG may be set too.
# torchrun only starts the processes: `--no-python` runs our program as it is. The same lines again
# go on with a run that was left or lost.
#
# To leave, send SIGUSR1 to one process of `train` (ranks/*.json in the output folder has their
# numbers), not to torchrun: that one gives its processes 30 seconds, and the save may need more.
# torchrun's own exit code is 1 whatever its processes' codes were, 75 too.
set -euo pipefail
cd "$(dirname "$0")/../.."
: "${MASTER_ADDR:?the address of node 0}" "${NODE_RANK:?0 on the first node, 1 on the second}"
source configs/train/start.sh
exec torchrun --no-python \
    --nnodes "${NODES:-2}" --nproc-per-node "${GPUS:-8}" --node-rank "$NODE_RANK" \
    --master-addr "$MASTER_ADDR" --master-port "${MASTER_PORT:-29500}" \
    target/release/train "$@"
