#!/usr/bin/env bash
# From nothing to a word error rate on two CPU cores: a tiny random Qwen2-Audio, a few synthetic talks with slides,
# LoRA with ZeRO-2 on two processes, decoding, scoring. Everything lands in $RUN (default: runs/quickstart).
set -euo pipefail

RUN=${RUN:-runs/quickstart}
STEPS=${STEPS:-300}
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1} TOKENIZERS_PARALLELISM=false

say() { printf '\n== %s\n' "$*"; }
quietly() { # the whole output of a command to a log; on an error its end
    local log=$1
    shift
    if ! "$@" >"$log" 2>&1; then
        tail -n 30 "$log" >&2
        echo "failed: $* (whole log: $log)" >&2
        return 1
    fi
}

rm -rf "$RUN"
mkdir -p "$RUN"

say "1. a tiny Qwen2-Audio with random weights"
sap2 make-tiny "$RUN/model"

say "2. talks with slides, spoken by espeak-ng, and their rows"
sap2 make-talks "$RUN/talks" --talks 3 --slides 4 --utterances 6 --keywords 6 --max-seconds 3 --seed 1
for split in train test; do
    python -m data_tools.slidespeech "$RUN/talks" --split $split --case lower \
        --output "$RUN/$split.utterances.jsonl" --audio-dir "$RUN/audio"
    python -m data_tools.build_asr "$RUN/$split.utterances.jsonl" --keywords all --output "$RUN/$split.jsonl"
done

say "3. LoRA with ZeRO-2 on two processes, $STEPS steps (log: $RUN/train.log)"
NPROC_PER_NODE=2 DS_ACCELERATOR=cpu quietly "$RUN/train.log" swift sft --model "$RUN/model" \
    --model_type sap_qwen2_audio --dataset "$RUN/train.jsonl" --max_steps "$STEPS" --per_device_train_batch_size 6 \
    --gradient_accumulation_steps 1 --max_length 4096 --output_dir "$RUN/out" --add_version false \
    --train_type lora --freeze_llm false --freeze_vit true --freeze_aligner false --lora_rank 8 \
    --sap_window_size 2 --compressor_hidden_size 128 --num_attention_heads 4 --deepspeed zero2 \
    --learning_rate 5e-3 --warmup_ratio 0.05 --gradient_checkpointing false --vit_gradient_checkpointing false \
    --logging_steps 20 --save_steps "$STEPS" --dataloader_num_workers 0 --report_to none --check_model false
CHECKPOINT=$RUN/out/checkpoint-$STEPS
grep -o "'loss': '[0-9.]*'" "$RUN/train.log" | sed -n '1p;$p' | tr '\n' ' '

say "4. decoding the talk that it was trained on, and one that it never heard"
for split in train test; do
    quietly "$RUN/infer-$split.log" swift infer --adapters "$CHECKPOINT" --infer_backend pt --temperature 0 \
        --max_batch_size 12 --max_new_tokens 64 --val_dataset "$RUN/$split.jsonl" \
        --result_path "$RUN/$split.result.jsonl" --stream false &
done
wait -n
wait -n

say "5. word error rates"
for split in train test; do
    echo "--- $split"
    python eval/slidespeech_wer.py --input_file "$RUN/$split.result.jsonl" \
        --json "$RUN/$split.wer.json" --html "$RUN/$split.report.html"
done

cat <<END

This model began with random weights and has heard $(wc -l <"$RUN/train.jsonl") utterances of one voice, $STEPS times
12 of them. "train" is how well it learnt those by heart; "test", a talk with another voice and other names, shows that
it has not learnt to recognise speech, which takes thousands of utterances. What works is every part of the way.

model       $RUN/model
rows        $RUN/train.jsonl, $RUN/test.jsonl
adapter     $CHECKPOINT
results     $RUN/train.result.jsonl, $RUN/test.result.jsonl
reports     $RUN/train.report.html, $RUN/test.report.html
END
