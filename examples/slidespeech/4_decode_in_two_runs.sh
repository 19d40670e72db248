#!/usr/bin/env bash
# The same text as 4_decode.sh in two runs of ms-swift with the extraction between them: twice the loading, twice the
# audio tower, and a rerun starts from the beginning.
set -euo pipefail
source "$(dirname "$0")/settings.sh"
: "${PRUNE_CHECKPOINT:=$(newest_checkpoint "$PRUNE_OUT")}"
: "${ASR_CHECKPOINT:=$(newest_checkpoint "$ASR_OUT")}"

python -m data_tools.build_prune "$WORK/test.utterances.jsonl" --output "$WORK/test.prune.jsonl" --split-words

NPROC_PER_NODE="$GPUS" swift infer --adapters "$PRUNE_CHECKPOINT" --infer_backend pt --temperature 0 --stream false \
    --max_batch_size 32 --max_new_tokens 512 \
    --val_dataset "$WORK/test.prune.jsonl" --result_path "$RESULT/two.prune.jsonl"

python -m data_tools.extract_predicted_keywords "$RESULT/two.prune.jsonl" "$WORK/test.all.jsonl" \
    --output "$WORK/test.predicted.jsonl"

NPROC_PER_NODE="$GPUS" swift infer --adapters "$ASR_CHECKPOINT" --infer_backend pt --temperature 0 --stream false \
    --max_batch_size 32 --max_new_tokens 512 \
    --val_dataset "$WORK/test.predicted.jsonl" --result_path "$RESULT/two.jsonl"
