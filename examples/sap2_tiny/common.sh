# Shared by train.sh and test.sh: where everything lies, and the talks. A smaller run: TALKS, and the steps of train.sh.
RUN=${RUN:-runs/sap2-tiny}
TALKS=${TALKS:---talks 132 --dev-talks 4 --test-talks 16 --utterances 5}
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1} TOKENIZERS_PARALLELISM=false
mkdir -p "$RUN"

say() { printf '\n== %s\n' "$*"; }

# 14,000 utterances to learn from, and 16 other talks to be tested with
make_talks() {
    # shellcheck disable=SC2086  # several options
    [ -d "$RUN/talks" ] || sap2 make-talks "$RUN/talks" $TALKS --slides 25 --keywords 8 --homophones 0.4 --near 0.25 \
        --plain 0.2 --noise 0.3 --max-seconds 3 --seed 11
}

utterances() { # SPLIT SLIDES
    [ -f "$RUN/$1-$2.jsonl" ] || python -m data_tools.slidespeech "$RUN/talks" --split "$1" --slides "$2" \
        --audio-dir "$RUN/audio" --output "$RUN/$1-$2.jsonl"
}
