#!/usr/bin/env bash
# WER, U-WER, B-WER and keyword recall; precision and recall of stage one. Paper, L95 with 5 slides: WER 7.71 %.
# whisper-en is the normaliser of the published numbers.
set -euo pipefail
source "$(dirname "$0")/settings.sh"

sap2 score unpruned="$RESULT/test.unpruned.jsonl" sap2="$RESULT/test.jsonl" --normalize whisper-en --by-session \
    --json "$RESULT/wer.json" --html "$RESULT/wer.html"

sap2 score-keywords sap2="$RESULT/test.prune.jsonl" --normalize whisper-en --json "$RESULT/keywords.json"
