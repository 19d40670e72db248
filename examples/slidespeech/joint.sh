#!/usr/bin/env bash
# The paper's joint baseline: one model selects the keywords and transcribes in one reply.
set -euo pipefail
source "$(dirname "$0")/settings.sh"

for split in L95 dev; do
    python -m data_tools.build_joint "$WORK/$split.utterances.jsonl" --output "$WORK/$split.joint.jsonl" --split-words
done

train joint "$WORK/joint" "$@"

torchrun --nproc_per_node "$GPUS" -m sap2.cli pipeline --stages joint \
    --val-dataset "$WORK/test.all.jsonl" --result-path "$RESULT/test.joint.jsonl" \
    --model "$MODEL" --asr-adapter "${JOINT_CHECKPOINT:=$(newest_checkpoint "$WORK/joint")}" --batch-size 32
