# Shared by train.sh and test.sh: where everything lies, and the talks. A smaller run: TALKS, and the steps of train.sh.
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
