#!/usr/bin/env bash
# Both stages in one process. 5_score.sh of ../slidespeech scores the result.
set -euo pipefail
source "$(dirname "$0")/settings.sh"
: "${PRUNE_CHECKPOINT:=$(newest_checkpoint "$PRUNE_OUT")}"
: "${ASR_CHECKPOINT:=$(newest_checkpoint "$ASR_OUT")}"

sap2 pipeline \
    --val-dataset "$WORK/test.all.jsonl" --result-path "$RESULT/test.jsonl" \
    --model "$MODEL" --prune-adapter "$PRUNE_CHECKPOINT" --asr-adapter "$ASR_CHECKPOINT" \
    --batch-size 16 --max-batch-tokens 30000
