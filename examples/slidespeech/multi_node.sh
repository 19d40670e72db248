#!/usr/bin/env bash
# Stage one on several machines; start it on each of them, with the machine's number:
#
#   NNODES=2 NODE_RANK=0 MASTER_ADDR=10.0.0.1 bash examples/slidespeech/multi_node.sh      # on the first
#   NNODES=2 NODE_RANK=1 MASTER_ADDR=10.0.0.1 bash examples/slidespeech/multi_node.sh      # on the second
#
# ms-swift hands these variables to torchrun. Code, rows, audio and model are at the same paths on all machines. A step
# takes BATCH x GPUS x NNODES x ACCUMULATION rows: with twice the machines, halve ACCUMULATION or BATCH.
set -euo pipefail
: "${NNODES:?how many machines}" "${NODE_RANK:?number of this machine, from 0}" "${MASTER_ADDR:?address of the first one}"
export NNODES NODE_RANK MASTER_ADDR MASTER_PORT="${MASTER_PORT:-29500}"
export BATCH="${BATCH:-16}"

bash "$(dirname "$0")/2_train_prune.sh"
