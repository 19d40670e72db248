#!/usr/bin/env bash
# Both stages in one process on each GPU. A run that was killed goes on when it is started again; a row that cannot be
# decoded is in $RESULT/test.errors.jsonl, and the exit code is 1 then.
set -euo pipefail
source "$(dirname "$0")/settings.sh"
: "${PRUNE_CHECKPOINT:=$(newest_checkpoint "$PRUNE_OUT")}"
: "${ASR_CHECKPOINT:=$(newest_checkpoint "$ASR_OUT")}"

torchrun --nproc_per_node "$GPUS" -m sap2.cli pipeline \
    --val-dataset "$WORK/test.all.jsonl" --result-path "$RESULT/test.jsonl" \
    --model "$MODEL" --prune-adapter "$PRUNE_CHECKPOINT" --asr-adapter "$ASR_CHECKPOINT" \
    --batch-size 32 --max-batch-tokens 60000

# The same, without stage one: the whole list goes to the recogniser.
torchrun --nproc_per_node "$GPUS" -m sap2.cli pipeline \
    --val-dataset "$WORK/test.all.jsonl" --result-path "$RESULT/test.unpruned.jsonl" \
    --model "$MODEL" --stages asr --asr-adapter "$ASR_CHECKPOINT" --batch-size 32 --max-batch-tokens 60000
