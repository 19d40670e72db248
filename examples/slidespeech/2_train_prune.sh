#!/usr/bin/env bash
# Stage one: pick the keywords of the list that are spoken. About 38,000 s on 7 A100-40G (paper).
#
# ZeRO-2 shares gradients and optimizer state of the trained weights (LoRA, some 20 M) among the GPUs. ZeRO-3 would share
# the frozen 8.4 B weights as well (17 GB in bfloat16) and gather them again in every layer of every step; they fit on a
# 40 GB GPU, so that it would only cost time.
set -euo pipefail
source "$(dirname "$0")/settings.sh"

NPROC_PER_NODE="$GPUS" swift sft \
    --model "$MODEL" --model_type sap_qwen2_audio \
    --dataset "$WORK/L95.prune.jsonl" --val_dataset "$WORK/dev.prune.jsonl" \
    --num_train_epochs 1 --max_length "$MAX_LENGTH" \
    --per_device_train_batch_size "$BATCH" --per_device_eval_batch_size "$BATCH" \
    --gradient_accumulation_steps "$ACCUMULATION" --learning_rate 1e-4 --warmup_ratio 0.05 \
    --train_type lora --lora_rank 8 --freeze_llm false --freeze_vit true --freeze_aligner false \
    --sap_pooling attention --sap_window_size 2 --compressor_hidden_size 4096 --num_attention_heads 4 \
    --torch_dtype bfloat16 --deepspeed zero2 --dataloader_num_workers 4 \
    --save_steps "$STEPS_BETWEEN_SAVES" --eval_steps "$STEPS_BETWEEN_SAVES" --save_total_limit 3 \
    --output_dir "$PRUNE_OUT" --add_version false "$@"
