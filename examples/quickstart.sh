#!/usr/bin/env bash
# From nothing to the gain that slides give, on two CPU cores. sap2-tiny is adapted to talks in voices that it does not
# know, with LoRA and ZeRO-2 on two processes; then it transcribes talks that nobody has heard, in voices that it knows, with
# the slides of each talk and without. Everything lands in $RUN (default: runs/quickstart).
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

talks() { # NAME SEED FLAGS…: a corpus of talks of its own
    local name=$1 seed=$2
    shift 2
    sap2 make-talks "$RUN/$name" --dev-talks 1 --test-talks 4 --slides 6 --utterances 5 --max-seconds 3 --seed "$seed" "$@"
}
rows() { # NAME SPLIT: rows with the keywords of 5 slides, and rows without
    sap2 data slidespeech "$RUN/$1" --split "$2" --slides 5 --output "$RUN/$1.$2.utterances.jsonl" --audio-dir "$RUN/$1.audio"
    sap2 data build_asr "$RUN/$1.$2.utterances.jsonl" --keywords all --output "$RUN/$1.$2.jsonl"
    sap2 data build_asr "$RUN/$1.$2.utterances.jsonl" --keywords none --output "$RUN/$1.$2.plain.jsonl"
}
transcribe() { # ROWS RESULT FLAGS…: by the adapters that come along
    local rows=$1 result=$2
    shift 2
    quietly "$RUN/$result.log" sap2 pipeline --model sap2-tiny --asr-adapter sap2-tiny-asr "$@" --batch-size 40 \
        --max-new-tokens 100 --val-dataset "$RUN/$rows.jsonl" --result-path "$RUN/$result.result.jsonl"
}

say "1. talks, spoken by espeak-ng: new names in all of them; in the first corpus new voices as well"
talks new 101 --talks 14 --voices en-gb-scotland+f2,en-gb-scotland+m3,en-029+f3,en-029+m5
talks known 202 --talks 6
rows new train
rows new test
rows known test

say "2. training for the new voices: LoRA with ZeRO-2 on two processes, $STEPS steps (log: $RUN/train.log)"
NPROC_PER_NODE=2 DS_ACCELERATOR=cpu quietly "$RUN/train.log" swift sft --model sap2-tiny \
    --model_type sap_qwen2_audio --dataset "$RUN/new.train.jsonl" "$RUN/new.train.plain.jsonl" --max_steps "$STEPS" \
    --per_device_train_batch_size 6 --gradient_accumulation_steps 1 --max_length 4096 --output_dir "$RUN/out" \
    --add_version false --train_type lora --freeze_llm false --freeze_vit true --freeze_aligner false --lora_rank 8 \
    --sap_pooling salience --sap_window_size 2 --compressor_hidden_size 128 --num_attention_heads 4 --deepspeed zero2 \
    --learning_rate 1e-3 --warmup_ratio 0.05 --gradient_checkpointing false --vit_gradient_checkpointing false \
    --logging_steps 20 --save_steps "$STEPS" --dataloader_num_workers 0 --report_to none --check_model false
CHECKPOINT=$RUN/out/checkpoint-$STEPS
grep -o "'loss': '[0-9.]*'" "$RUN/train.log" | tr -dc "0-9.\n" | sed -n '1s/^/loss at first: /p;$s/^/loss at the end: /p'

say "3. new voices: $(wc -l <"$RUN/new.test.jsonl") utterances of 4 talks that it has not heard"
for rows in new.test new.test.plain; do
    quietly "$RUN/$rows.log" swift infer --adapters "$CHECKPOINT" --infer_backend pt --temperature 0 \
        --max_batch_size 16 --max_new_tokens 100 --val_dataset "$RUN/$rows.jsonl" \
        --result_path "$RUN/$rows.result.jsonl" --stream false &
done
wait -n
wait -n
transcribe new.test before
sap2 score "before this training, with slides=$RUN/before.result.jsonl" \
    "trained, without slides=$RUN/new.test.plain.result.jsonl" "trained, with slides=$RUN/new.test.result.jsonl" \
    --json "$RUN/new.wer.json" --html "$RUN/new.html" >"$RUN/new.score.txt"
sed -n '1,/^$/p' "$RUN/new.score.txt"
sed -n '/^system .*figure/,/^$/p' "$RUN/new.score.txt"

say "4. known voices: $(wc -l <"$RUN/known.test.jsonl") utterances of 4 talks that it has not heard, no training needed"
transcribe known.test.plain plain
transcribe known.test slides --prune-adapter sap2-tiny-prune
sap2 score "without slides=$RUN/plain.result.jsonl" "with slides=$RUN/slides.result.jsonl" \
    --json "$RUN/wer.json" --html "$RUN/report.html" >"$RUN/score.txt"
sed -n '/^system .*figure/,/^$/p' "$RUN/score.txt"

say "5. a list of 500 names for each utterance of these talks: as it is, and as the spotter picks from it"
quietly "$RUN/long.log" python eval/prune.py "$RUN/known.test.utterances.jsonl" "$RUN/long" --sizes 40 500 --pruners spot --per-talk 10 --seeds 1
python - "$RUN/long/figures.json" <<'END'
import json, sys

arms = json.load(open(sys.argv[1], encoding="utf-8"))["arms"]
names = {"none": "no list", "whole-500": "500 names, as they are", "list-500-spot": "500 names, the spotter's picks"}
print(f"{'':32}{'WER':>6}{'B-WER':>7}  seconds of picking, an utterance")
for arm, name in names.items():
    rates, seconds = arms[arm]["rates"], arms[arm].get("seconds")
    print(f"{name:32}{rates['wer'][0]:6.1f}{rates['b_wer'][0]:7.1f}  {'' if seconds is None else f'{seconds:.3f}'}")
END

cat <<END
WER counts the wrong words of 100. B-WER counts those among the words of the slides, U-WER those among all others: the names
of these talks can be spelled in more than one way, and only the slide tells which. sap2-tiny is for trying, testing and
teaching: it knows a few hundred common words and the voices of espeak-ng, and no real speech.

adapter     $CHECKPOINT
results     $RUN/slides.result.jsonl, $RUN/plain.result.jsonl
reports     $RUN/report.html, $RUN/new.html
END
