#!/usr/bin/env bash
# Both stages in one process. 5_score.sh of ../slidespeech scores the result.
set -euo pipefail
source "$(dirname "$0")/settings.sh"
: "${PRUNE_CHECKPOINT:=$(newest_checkpoint "$PRUNE_OUT")}"
: "${ASR_CHECKPOINT:=$(newest_checkpoint "$ASR_OUT")}"

sap2 pipeline \
    --val_dataset "$WORK/test.all.jsonl" --result_path "$RESULT/test.jsonl" \
    --model "$MODEL" --prune-adapter "$PRUNE_CHECKPOINT" --asr-adapter "$ASR_CHECKPOINT" \
    --batch_size 16 --max_batch_tokens 30000
