#!/usr/bin/env bash
# How sap2-tiny was made, from nothing: talks, a curriculum, and the two LoRA stages. Two CPU cores take about five hours
# (NPROC=1 and a GPU minutes); a run that was stopped goes on where it was. Everything lands in $RUN.
set -euo pipefail
cd "$(dirname "$0")/../.."

. examples/sap2_tiny/common.sh
NPROC=${NPROC:-2}
BATCH=$((24 / NPROC)) # 24 rows a step, whatever the number of processes
SHORT=${SHORT:-2500} LONG=${LONG:-1300} LORA=${LORA:-600} SAVE=${SAVE:-250} # steps
SPOT=${SPOT:-2000} PICKED=${PICKED:-400} AGAIN=${AGAIN:-6000} # steps of what comes after
TOWER=${TOWER:-13900} NOISY=${NOISY:-1400} FINAL=${FINAL:-1400} LOUD=${LOUD:-4000} # steps with noise
WINDOW=${WINDOW:-32} # of the LoRA stages

whole=(--tuner_type full --freeze_llm false --freeze_vit false --freeze_aligner false)
lora=(--tuner_type lora --lora_rank 8 --freeze_llm false --freeze_vit true --freeze_aligner false)

say "1. talks"
make_talks
utterances train 25

say "2. spelling what is heard, and copying from lists of 1, 2, 4 and 8 names"
[ -d "$RUN/random" ] || sap2 make-tiny "$RUN/random" --seed 1
[ -f "$RUN/short.jsonl" ] || python -m data_tools.build_curriculum "$RUN/train-25.jsonl" --rows $((24 * SHORT)) \
    --stages 0.4:1,0.2:2,0.2:4,0.2:8 --output "$RUN/short.jsonl"
train short "$SHORT" --model "$RUN/random" --dataset "$RUN/short.jsonl" "${whole[@]}" --sap_window_size 1 \
    --sap_pooling mean --learning_rate 1.5e-3 --warmup_steps 300 --lr_scheduler_type cosine_with_min_lr \
    --lr_scheduler_kwargs '{"min_lr_rate": 0.1, "num_cycles": 0.2340425}'

say "3. lists of 8 to 64 names, and the spotter"
[ -d "$RUN/short-model" ] || python examples/sap2_tiny/export.py "$RUN/short/checkpoint-$SHORT" "$RUN/short-model"
[ -f "$RUN/long.jsonl" ] || python -m data_tools.build_curriculum "$RUN/train-25.jsonl" --rows $((24 * LONG)) \
    --stages 0.15:8,0.85:8-64 --seed 2 --output "$RUN/long.jsonl"
train long "$LONG" --model "$RUN/short-model" --dataset "$RUN/long.jsonl" "${whole[@]}" --sap_window_size 1 \
    --sap_pooling salience --sap_min_positions 0 --learning_rate 8e-4 --warmup_steps 50 --lr_scheduler_type cosine
[ -d "$RUN/sap2-tiny" ] || python examples/sap2_tiny/export.py "$RUN/long/checkpoint-$LONG" "$RUN/sap2-tiny"

say "4. the two LoRA stages, as users train them: lists of 1 to 500 names"
BATCH=$((12 / NPROC)) # lists of 500 names have 4,000 tokens
rows() { # STAGE FLAGS…: the lists of a step are of one size
    [ -f "$RUN/$1.jsonl" ] || python -m data_tools.build_curriculum "$RUN/train-25.jsonl" --rows $((12 * LORA)) \
        --block 12 --stages 0.2:1-8,0.8:4-500 "${@:2}" --output "$RUN/$1.jsonl"
}
rows prune --tasks prune=1 --seed 6
rows asr --tasks asr=0.85,plain=0.15 --seed 5
for stage in prune asr; do
    # 64 positions for up to 2,048 tokens, 125 for 4,000: of a long list it reads little but what the speech holds
    train $stage "$LORA" --model "$RUN/sap2-tiny" --dataset "$RUN/$stage.jsonl" "${lora[@]}" \
        --sap_pooling salience --sap_window_size "$WINDOW" --sap_min_positions 64 --learning_rate 2e-3 --warmup_ratio 0.05
    [ -d "$RUN/sap2-tiny-$stage" ] ||
        python examples/sap2_tiny/export.py "$RUN/$stage/checkpoint-$LORA" "$RUN/sap2-tiny-$stage"
done

say "5. the spotter alone, and stage two on what it picks: from lists of 8 to 500 names, and from a bank of 10,000"
[ -d "$RUN/spotter" ] || python examples/sap2_tiny/spotter.py "$RUN/sap2-tiny" "$RUN/train-25.jsonl" "$RUN/spotter" \
    --adapter "$RUN/sap2-tiny-asr" --steps "$SPOT"
utterances dev 5
[ -f "$RUN/bank.txt" ] || python examples/sap2_tiny/bank.py "$RUN/bank.txt" "$RUN/train-25.jsonl"
# with the homophones that the lists of other talks hold
[ -f "$RUN/dev-bank.txt" ] || python examples/sap2_tiny/bank.py "$RUN/dev-bank.txt" "$RUN/dev-5.jsonl" "$RUN/train-25.jsonl"
calibrate() { # ADAPTER [MODEL]; probabilities, on talks that were not trained on
    [ -f "$1/pruner.json" ] && [ "$1/pruner.json" -nt "$1/adapter_model.safetensors" ] && return
    sap2 calibrate --model "${2:-$RUN/sap2-tiny}" --asr-adapter "$1" --val-dataset "$RUN/dev-5.jsonl" \
        --term-bank "$RUN/dev-bank.txt"
}
calibrate "$RUN/spotter"
EARS=$RUN/sap2-tiny SPOTTER=$RUN/spotter
picked() { # NAME ROWS STAGES SEED FLAGS…: rows with what the spotter picks
    [ -f "$RUN/$1.rows.jsonl" ] && return
    python -m data_tools.build_curriculum "$RUN/train-25.jsonl" --rows "$2" --block 12 --stages "$3" --tasks asr=1 \
        --seed "$4" --output "$RUN/$1.jsonl"
    sap2 pipeline --model "$EARS" --asr-adapter "$SPOTTER" --stages prune --pruner spot --prune-threshold 0.03 \
        --val-dataset "$RUN/$1.jsonl" --result-path "$RUN/$1.picked.jsonl" "${@:5}"
    python -m data_tools.extract_predicted_keywords "$RUN/$1.picked.jsonl" "$RUN/$1.jsonl" --output "$RUN/$1.rows.jsonl"
}
picked near 2640 0.5:8-64,0.5:64-500 7
picked wide 1800 1:8-64 8 --term-bank "$RUN/bank.txt"
[ -f "$RUN/whole.jsonl" ] || python -m data_tools.build_curriculum "$RUN/train-25.jsonl" --rows 1560 --block 12 \
    --stages 0.7:4-64,0.3:64-500 --tasks asr=0.6,plain=0.4 --seed 9 --output "$RUN/whole.jsonl"
if [ ! -d "$RUN/reader" ]; then
    train picked "$PICKED" --model "$RUN/sap2-tiny" --adapters "$RUN/spotter" "${lora[@]}" --sap_window_size "$WINDOW" --sap_pooling salience \
        --dataset "$RUN/near.rows.jsonl" "$RUN/wide.rows.jsonl" "$RUN/whole.jsonl" --dataset_shuffle true \
        --train_dataloader_shuffle true --sap_min_positions 64 --learning_rate 1e-3 --warmup_ratio 0.05 --seed 5
    python examples/sap2_tiny/export.py "$RUN/picked/checkpoint-$PICKED" "$RUN/reader"
fi
# once more, through the projector that stage two has now
[ -d "$RUN/sap2-tiny-asr-picked" ] || python examples/sap2_tiny/spotter.py "$RUN/sap2-tiny" "$RUN/train-25.jsonl" \
    "$RUN/sap2-tiny-asr-picked" --adapter "$RUN/reader" --steps "$AGAIN"
calibrate "$RUN/sap2-tiny-asr-picked"

say "6. the tower learns to hear through noise what it hears without, then stage two and the spotter what is left of it"
make_talks clean 0
utterances train 25 clean clean-
voices=en-us,en-us,en-us,en-us # the plain voice is what people try first
for accent in en-us en-gb-x-rp en-gb-x-gbclan en-gb-x-gbcwmd en-us-nyc; do
    voices+=,$accent,$(printf "$accent+%s," f1 f2 f3 f4 f5 m1 m2 m3 m4 m5 m6 m7 m8 | sed 's/,$//')
done
TALKS=${VOICES:---talks 62 --dev-talks 1 --test-talks 1 --utterances 5} SEED=12 make_talks voices 0 --voices "$voices"
utterances train 25 voices voices-
[ -d "$RUN/sap2-tiny-noise" ] || python examples/sap2_tiny/tower.py "$RUN/sap2-tiny" "$RUN/clean-train-25.jsonl" "$RUN/sap2-tiny-noise" \
    --adapter "$RUN/sap2-tiny-asr-picked" --unknown "$RUN/voices-train-25.jsonl" --steps "$TOWER"
[ -f "$RUN/voices.jsonl" ] || python -m data_tools.build_curriculum "$RUN/voices-train-25.jsonl" --rows 2400 --block 12 \
    --stages 0.7:1-16,0.3:16-64 --tasks asr=0.8,plain=0.2 --seed 10 --output "$RUN/voices.jsonl"
EARS=$RUN/sap2-tiny-noise
with_noise() { # NAME STEPS SEED ADAPTER DISTANCES KINDS SHARE ROWS…: stage two through this tower
    train "$1" "$2" --model "$EARS" --adapters "$4" "${lora[@]}" --sap_window_size "$WINDOW" --sap_pooling salience \
        --sap_min_positions 64 --dataset "${@:8}" --dataset_shuffle true --train_dataloader_shuffle true \
        --learning_rate 1e-3 --warmup_ratio 0.05 --seed "$3" --sap_noise "$5" --sap_noise_kinds "$6" --sap_noise_share "$7"
}
all=noise,babble,hum,room
if [ ! -d "$RUN/noise-reader" ]; then
    with_noise noisy "$NOISY" 6 "$RUN/sap2-tiny-asr-picked" 3:20 $all 0.7 "$RUN"/{near.rows,wide.rows,whole,voices}.jsonl
    python examples/sap2_tiny/export.py "$RUN/noisy/checkpoint-$NOISY" "$RUN/noise-reader"
fi
[ -d "$RUN/sap2-tiny-asr-noise" ] || python examples/sap2_tiny/spotter.py "$RUN/sap2-tiny-noise" "$RUN/clean-train-25.jsonl" \
    "$RUN/sap2-tiny-asr-noise" --adapter "$RUN/noise-reader" --steps "$AGAIN" --noise
calibrate "$RUN/sap2-tiny-asr-noise" "$RUN/sap2-tiny-noise"

say "7. stage two once more, on other rows and through this tower: two runs, one from the first and one from their mean"
SPOTTER=$RUN/sap2-tiny-asr-noise
picked last-near 6000 0.5:8-64,0.5:64-500 17
picked last-wide 4800 1:8-64 18 --term-bank "$RUN/bank.txt"
[ -f "$RUN/last-whole.jsonl" ] || python -m data_tools.build_curriculum "$RUN/train-25.jsonl" --rows 3000 --block 12 \
    --stages 0.7:4-64,0.3:64-500 --tasks asr=0.6,plain=0.4 --seed 19 --output "$RUN/last-whole.jsonl"
[ -f "$RUN/last-voices.jsonl" ] || python -m data_tools.build_curriculum "$RUN/voices-train-25.jsonl" --rows 3000 --block 12 \
    --stages 0.7:1-16,0.3:16-64 --tasks asr=0.8,plain=0.2 --seed 20 --output "$RUN/last-voices.jsonl"
last() { with_noise "$1" "$FINAL" "${@:2}" "$RUN"/last-{near.rows,wide.rows,whole,voices}.jsonl; }
mean() { # NAME RUN…: of their adapters
    [ -d "$RUN/$1" ] || python examples/sap2_tiny/export.py "${@:2}" "$RUN/$1"
}
last last-1 11 "$SPOTTER" 3:20 $all 0.7
last last-2 12 "$SPOTTER" 3:15 noise,babble,room 0.8
mean last-mean "$RUN/last-1/checkpoint-$FINAL" "$RUN/last-2/checkpoint-$FINAL"
last last-3 13 "$RUN/last-1/checkpoint-$FINAL" 3:20 $all 0.7
last last-4 14 "$RUN/last-mean" 3:20 $all 0.7
mean sap2-tiny-asr-last "$RUN/last-3/checkpoint-$FINAL" "$RUN/last-4/checkpoint-$FINAL"

say "8. the tower once more, with louder noise"
[ -d "$RUN/sap2-tiny-loud" ] || python examples/sap2_tiny/tower.py "$EARS" "$RUN/clean-train-25.jsonl" "$RUN/sap2-tiny-loud" \
    --adapter "$RUN/sap2-tiny-asr-last" --unknown "$RUN/voices-train-25.jsonl" --steps "$LOUD" --loud
calibrate "$RUN/sap2-tiny-asr-last" "$RUN/sap2-tiny-loud"

say "9. talks that nobody heard"
MODEL=$RUN/sap2-tiny-loud PRUNE=$RUN/sap2-tiny-prune ASR=$RUN/sap2-tiny-asr-last bash examples/sap2_tiny/test.sh
