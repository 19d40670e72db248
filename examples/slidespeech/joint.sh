#!/usr/bin/env bash
# The paper's joint baseline: one model selects the keywords and transcribes in one reply.
set -euo pipefail
source "$(dirname "$0")/settings.sh"

for split in L95 dev; do
    python -m data_tools.build_joint "$WORK/$split.utterances.jsonl" --output "$WORK/$split.joint.jsonl" --split-words
done

NPROC_PER_NODE="$GPUS" swift sft \
    --model "$MODEL" --model_type sap_qwen2_audio \
    --dataset "$WORK/L95.joint.jsonl" --val_dataset "$WORK/dev.joint.jsonl" \
    --num_train_epochs 1 --max_length "$MAX_LENGTH" --per_device_train_batch_size "$BATCH" \
    --gradient_accumulation_steps "$ACCUMULATION" --learning_rate 1e-4 --warmup_ratio 0.05 \
    --train_type lora --lora_rank 8 --freeze_llm false --freeze_vit true --freeze_aligner false \
    --sap_pooling attention --sap_window_size 2 --compressor_hidden_size 4096 --num_attention_heads 4 \
    --torch_dtype bfloat16 --deepspeed zero2 \
    --save_steps "$STEPS_BETWEEN_SAVES" --output_dir "$WORK/joint" --add_version false

torchrun --nproc_per_node "$GPUS" -m sap2.cli pipeline --stages joint \
    --val_dataset "$WORK/test.all.jsonl" --result_path "$RESULT/test.joint.jsonl" \
    --model "$MODEL" --asr-adapter "${JOINT_CHECKPOINT:=$(newest_checkpoint "$WORK/joint")}" --batch_size 32
