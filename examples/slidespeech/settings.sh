# Paths, sizes and the training command of the SlideSpeech recipe; the scripts beside this file read it. Set any of the
# capital variables in the environment.
#
# Paper (arXiv 2511.11139): SlideSpeech L95 with the keywords of 5 slides, window 2, LoRA on projector and language model.
# There, on 7 A100 of 40 GB: about 38,000 s for stage one and 30,000 s for stage two; without compression about 60,000 s.

: "${CORPUS:=/data/slidespeech}"             # L95/, dev/ and test/ with segments, text, keywords, wav.scp
: "${WORK:=work/slidespeech}"                # everything that is made goes here
: "${MODEL:=Qwen/Qwen2-Audio-7B-Instruct}"   # a name of the hub, or a folder
: "${GPUS:=8}"
: "${SLIDES:=5}"                             # 1, 5, 15, 25 …: each utterance's own slide and the nearest
: "${MAX_LENGTH:=4096}"                      # tokens of a row after compression
: "${DTYPE:=bfloat16}"
: "${ZERO=zero2}"                            # how the GPUs share the training; empty: without DeepSpeed

# 256 rows a step. Halve BATCH and double ACCUMULATION where the memory is short; the result is the same.
: "${BATCH:=32}"
: "${ACCUMULATION:=1}"
: "${STEPS_BETWEEN_SAVES:=500}"

PRUNE_OUT="$WORK/prune"                      # stage one's checkpoints: $PRUNE_OUT/checkpoint-N
ASR_OUT="$WORK/asr"                          # stage two's
RESULT="$WORK/result"

# The newest checkpoint of a folder. PRUNE_CHECKPOINT and ASR_CHECKPOINT name others.
newest_checkpoint() { find "$1" -maxdepth 1 -name 'checkpoint-*' | sort -V | tail -n 1; }

# train NAME OUTPUT FLAGS…: one epoch over $WORK/L95.NAME.jsonl with the settings of the paper.
#
# ZeRO-2 shares gradients and optimizer state of the trained weights (LoRA, some 20 M) among the GPUs. ZeRO-3 would share
# the frozen 8.4 B weights as well (17 GB in bfloat16) and gather them again in every layer of every step; they fit on a
# 40 GB GPU, so that it would only cost time. One GPU has nobody to share with.
train() {
    local name=$1 output=$2
    shift 2
    NPROC_PER_NODE="$GPUS" swift sft \
        --model "$MODEL" --model_type sap_qwen2_audio \
        --dataset "$WORK/L95.$name.jsonl" --val_dataset "$WORK/dev.$name.jsonl" \
        --num_train_epochs 1 --max_length "$MAX_LENGTH" \
        --per_device_train_batch_size "$BATCH" --per_device_eval_batch_size "$BATCH" \
        --gradient_accumulation_steps "$ACCUMULATION" --learning_rate 1e-4 --warmup_ratio 0.05 \
        --train_type lora --lora_rank 8 --freeze_llm false --freeze_vit true --freeze_aligner false \
        --sap_pooling attention --sap_window_size 2 --num_attention_heads 4 \
        --torch_dtype "$DTYPE" ${ZERO:+--deepspeed "$ZERO"} --dataloader_num_workers 4 \
        --save_steps "$STEPS_BETWEEN_SAVES" --eval_steps "$STEPS_BETWEEN_SAVES" --save_total_limit 3 \
        --output_dir "$output" --add_version false "$@"
}
