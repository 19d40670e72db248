#!/usr/bin/env bash
# Decode and score test-clean and test-other with the definition of the biasing lists' authors.
set -euo pipefail
source "$(dirname "$0")/settings.sh"
: "${PRUNE_CHECKPOINT:=$(newest_checkpoint "$WORK/prune")}"
: "${ASR_CHECKPOINT:=$(newest_checkpoint "$WORK/asr")}"

for split in test-clean test-other; do
    torchrun --nproc_per_node "$GPUS" -m sap2.cli pipeline \
        --val-dataset "$WORK/$split.all.jsonl" --result-path "$WORK/$split.result.jsonl" \
        --model "$MODEL" --prune-adapter "$PRUNE_CHECKPOINT" --asr-adapter "$ASR_CHECKPOINT" --batch-size 32
    sap2 score --biasing-tsv "$BIASING/ref/$split.biasing_$LIST.tsv" \
        --hyp sap2="$WORK/$split.result.jsonl" --json "$WORK/$split.wer.json"
done
