#!/usr/bin/env bash
# Both stages, one after the other.
set -euo pipefail
source "$(dirname "$0")/settings.sh"

for stage in prune asr; do
    NPROC_PER_NODE="$GPUS" swift sft \
        --model "$MODEL" --model_type sap_qwen2_audio --val_dataset "$WORK/dev-clean.$stage.jsonl" \
        --dataset "$WORK/train-clean-100.$stage.jsonl" "$WORK/train-clean-360.$stage.jsonl" \
            "$WORK/train-other-500.$stage.jsonl" \
        --num_train_epochs 1 --max_length 4096 --per_device_train_batch_size "$BATCH" \
        --gradient_accumulation_steps "$ACCUMULATION" --learning_rate 1e-4 --warmup_ratio 0.05 \
        --train_type lora --lora_rank 8 --freeze_llm false --freeze_vit true --freeze_aligner false \
        --sap_pooling attention --sap_window_size 2 --num_attention_heads 4 \
        --torch_dtype "$DTYPE" --deepspeed zero2 --dataloader_num_workers 4 \
        --save_steps 1000 --save_total_limit 3 --output_dir "$WORK/$stage" --add_version false "$@"
done
