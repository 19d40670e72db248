#!/usr/bin/env bash
# What a short training with noise does for a sap2-tiny that has heard none (docs/noise.md): LoRA on clean rows, on noisy
# rows, and on noisy rows with twice the rank, with three seeds and the same rows for all; then eval/noise.py. The model
# is that of train.sh before its step 6. Three minutes of a core for a training, half an hour and more for the decoding; a
# run that was stopped goes on where it was. Everything lands in $RUN/arms.
set -euo pipefail
cd "$(dirname "$0")/../.."

. examples/sap2_tiny/common.sh
NPROC=${NPROC:-1} ROWS=12 # a step
BATCH=$((ROWS / NPROC)) SAVE=${SAVE:-100}
MODEL=${MODEL:-$RUN/sap2-tiny} ASR=${ASR:-$RUN/sap2-tiny-asr-picked} # folders
STEPS=${STEPS:-200} SEEDS=${SEEDS:-1 2 3}
DECODING=${DECODING:---kinds noise,babble,hum,room,telephone}

say "1. talks without noise, and lists of 4 to 64 names"
make_talks clean 0
utterances train 25 clean clean-
utterances test 5 clean clean-
mkdir -p "$RUN/arms"
[ -f "$RUN/arms/rows.jsonl" ] || python -m data_tools.build_curriculum "$RUN/clean-train-25.jsonl" --rows $((ROWS * STEPS)) \
    --block "$ROWS" --stages 1:4-64 --tasks asr=0.85,plain=0.15 --seed 11 --output "$RUN/arms/rows.jsonl"

say "2. the adapter becomes part of the model"
[ -d "$RUN/arms/model" ] || swift export --model "$MODEL" --model_type sap_qwen2_audio --adapters "$ASR" --merge_lora true \
    --torch_dtype float32 --output_dir "$RUN/arms/model"

say "3. the trainings"
noise=(--sap_noise 0:20) # the default kinds, in 7 rows of 10
flags() { # ARM: its flags
    case $1 in
        base) echo --learning_rate 0 --lora_rank 8 ;; # an adapter that changes nothing
        clean) echo --learning_rate 1e-3 --lora_rank 8 ;;
        noisy) echo --learning_rate 1e-3 --lora_rank 8 "${noise[@]}" ;;
        wider) echo --learning_rate 1e-3 --lora_rank 16 "${noise[@]}" ;;
    esac
}
adapters=()
arm() { # ARM SEED STEPS
    local name=arms/$1.$2 given
    given=$(flags "$1")
    # shellcheck disable=SC2086  # several flags
    train "$name" "$3" --model "$RUN/arms/model" --dataset "$RUN/arms/rows.jsonl" --dataset_shuffle true \
        --train_dataloader_shuffle true --seed "$2" --data_seed "$2" --warmup_ratio 0.05 --tuner_type lora \
        --freeze_llm false --freeze_vit false --freeze_aligner false $given
    # one calibration of the picks for all arms, the model's
    [ ! -f "$ASR/pruner.json" ] || cp "$ASR/pruner.json" "$RUN/$name/checkpoint-$3/"
    adapters+=(--adapter "$1.$2=$RUN/$name/checkpoint-$3")
}
arm base 1 1
for seed in $SEEDS; do
    for name in clean noisy wider; do
        arm "$name" "$seed" "$STEPS"
    done
done

say "4. the test talks, with noise and without"
# shellcheck disable=SC2086  # several options
python eval/noise.py "$RUN/clean-test-5.jsonl" "$RUN/arms/figures" --model "$RUN/arms/model" "${adapters[@]}" --ways spot \
    --differences noisy:clean wider:noisy $DECODING
