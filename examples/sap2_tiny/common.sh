# Shared by the scripts of this folder: where everything lies, the talks, and how a training is started. A smaller run:
# TALKS, and the steps of train.sh.
RUN=${RUN:-runs/sap2-tiny}
TALKS=${TALKS:---talks 132 --dev-talks 4 --test-talks 16 --utterances 5}
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1} TOKENIZERS_PARALLELISM=false
mkdir -p "$RUN"

say() { printf '\n== %s\n' "$*"; }

# 14,000 utterances to learn from, and 16 other talks to be tested with
make_talks() { # [FOLDER [NOISE [FLAGS…]]]: the same sentences and voices, with noise in so many talks
    # shellcheck disable=SC2086  # several options
    [ -d "$RUN/${1:-talks}" ] || sap2 make-talks "$RUN/${1:-talks}" $TALKS --slides 25 --keywords 8 --homophones 0.4 --near 0.25 \
        --plain 0.2 --noise "${2:-0.3}" --max-seconds 3 --seed "${SEED:-11}" "${@:3}"
}

utterances() { # SPLIT SLIDES [FOLDER [PREFIX]]
    [ -f "$RUN/${4:-}$1-$2.jsonl" ] || python -m data_tools.slidespeech "$RUN/${3:-talks}" --split "$1" --slides "$2" \
        --audio-dir "$RUN/${4:-}audio" --output "$RUN/${4:-}$1-$2.jsonl"
}

# train NAME STEPS FLAGS…: one training, of NPROC processes with BATCH rows each; goes on with its last checkpoint, does
# nothing where it is done
train() {
    local output=$RUN/$1 steps=$2 last
    shift 2
    local shards=()
    [ "$NPROC" = 1 ] || shards=(--deepspeed zero2)
    last=$({ find "$output" -name trainer_state.json 2>/dev/null || true; } | sort -V | tail -n 1 | xargs -r dirname)
    [ "$last" = "$output/checkpoint-$steps" ] && return
    NPROC_PER_NODE=$NPROC swift sft --model_type sap_qwen2_audio --output_dir "$output" --max_steps "$steps" \
        --dataset_shuffle false --train_dataloader_shuffle false --torch_dtype float32 --max_length 8192 \
        --per_device_train_batch_size "$BATCH" --gradient_accumulation_steps 1 "${shards[@]}" \
        --gradient_checkpointing false --vit_gradient_checkpointing false --weight_decay 0.01 \
        --logging_steps 25 --save_steps "$SAVE" --save_total_limit 2 --dataloader_num_workers 0 \
        --report_to none --check_model false --add_version false ${last:+--resume_from_checkpoint "$last"} "$@"
}
