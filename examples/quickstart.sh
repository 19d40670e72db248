#!/usr/bin/env bash
# From nothing to the gain that a context gives, on two CPU cores: sap2-tiny is adapted to talks of a new domain with
# LoRA and ZeRO-2 on two processes, and decodes talks that it has never heard, without and with the keywords of their
# slides. Everything lands in $RUN (default: runs/quickstart).
set -euo pipefail

RUN=${RUN:-runs/quickstart}
STEPS=${STEPS:-100}
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

say "1. talks with names and voices that sap2-tiny has not heard, spoken by espeak-ng, and their rows"
sap2 make-talks "$RUN/talks" --talks 14 --dev-talks 1 --test-talks 4 --slides 6 --utterances 5 --max-seconds 3 \
    --voices en-gb-scotland+f2,en-gb-scotland+m3,en-029+f3,en-029+m5 --seed 101
for split in train test; do
    python -m data_tools.slidespeech "$RUN/talks" --split $split --slides 5 --case lower \
        --output "$RUN/$split.utterances.jsonl" --audio-dir "$RUN/audio"
    python -m data_tools.build_asr "$RUN/$split.utterances.jsonl" --keywords all --output "$RUN/$split.jsonl"
    python -m data_tools.build_asr "$RUN/$split.utterances.jsonl" --keywords none --output "$RUN/$split.plain.jsonl"
done

say "2. LoRA with ZeRO-2 on two processes, $STEPS steps (log: $RUN/train.log)"
NPROC_PER_NODE=2 DS_ACCELERATOR=cpu quietly "$RUN/train.log" swift sft --model sap2-tiny \
    --model_type sap_qwen2_audio --dataset "$RUN/train.jsonl" "$RUN/train.plain.jsonl" --max_steps "$STEPS" \
    --per_device_train_batch_size 6 --gradient_accumulation_steps 1 --max_length 4096 --output_dir "$RUN/out" \
    --add_version false --train_type lora --freeze_llm false --freeze_vit true --freeze_aligner false --lora_rank 8 \
    --sap_pooling salience --sap_window_size 2 --compressor_hidden_size 128 --num_attention_heads 4 --deepspeed zero2 \
    --learning_rate 1e-3 --warmup_ratio 0.05 --gradient_checkpointing false --vit_gradient_checkpointing false \
    --logging_steps 20 --save_steps "$STEPS" --dataloader_num_workers 0 --report_to none --check_model false
CHECKPOINT=$RUN/out/checkpoint-$STEPS
grep -o "'loss': '[0-9.]*'" "$RUN/train.log" | sed -n '1p;$p' | tr '\n' ' '

say "3. decoding $(wc -l <"$RUN/test.jsonl") utterances of 4 talks that it has never heard, with and without their slides"
for rows in test test.plain; do
    quietly "$RUN/$rows.log" swift infer --adapters "$CHECKPOINT" --infer_backend pt --temperature 0 \
        --max_batch_size 16 --max_new_tokens 100 --val_dataset "$RUN/$rows.jsonl" \
        --result_path "$RUN/$rows.result.jsonl" --stream false &
done
wait -n
wait -n

say "4. word error rates"
python eval/slidespeech_wer.py --input_file "without slides=$RUN/test.plain.result.jsonl" \
    --input_file "with slides=$RUN/test.result.jsonl" --json "$RUN/wer.json" --html "$RUN/report.html"

cat <<END

B-WER counts the words of the slides, U-WER all others: many names of these talks can be spelled in more than one way,
and only the slide tells which. sap2-tiny is for trying, testing and teaching: it knows a few hundred common words and
the voices of espeak-ng, and no real speech.

rows        $RUN/train.jsonl, $RUN/test.jsonl
adapter     $CHECKPOINT
results     $RUN/test.result.jsonl, $RUN/test.plain.result.jsonl
report      $RUN/report.html
END
