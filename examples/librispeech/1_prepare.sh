#!/usr/bin/env bash
# LibriSpeech to rows. Training lists are drawn: the rare words of the utterance and 100 to 1000 others.
set -euo pipefail
source "$(dirname "$0")/settings.sh"

for split in train-clean-100 train-clean-360 train-other-500 dev-clean; do
    python -m data_tools.librispeech "$LIBRISPEECH" --split "$split" --output "$WORK/$split.utterances.jsonl" \
        --common-words "$BIASING/words/common_words_5k.txt" --rare-words "$BIASING/words/all_rare_words.txt" \
        --distractors "$DISTRACTORS" --seed 0
    python -m data_tools.build_prune "$WORK/$split.utterances.jsonl" --output "$WORK/$split.prune.jsonl"
    python -m data_tools.build_asr "$WORK/$split.utterances.jsonl" --output "$WORK/$split.asr.jsonl" \
        --keywords oracle --drop 0.05 --distractors 3 --seed 0
done

# Test lists are the published ones.
for split in test-clean test-other; do
    python -m data_tools.librispeech "$LIBRISPEECH" --split "$split" --output "$WORK/$split.utterances.jsonl" \
        --biasing-list "$BIASING/ref/$split.biasing_$LIST.tsv"
    python -m data_tools.build_asr "$WORK/$split.utterances.jsonl" --output "$WORK/$split.all.jsonl" --keywords all
done
