#!/usr/bin/env bash
# WER, U-WER, B-WER and keyword recall; precision and recall of stage one. Paper, L95 with 5 slides: WER 7.71 %.
set -euo pipefail
source "$(dirname "$0")/settings.sh"

python eval/slidespeech_wer.py --normalize whisper-en --by_session \
    --input_file unpruned="$RESULT/test.unpruned.jsonl" sap2="$RESULT/test.jsonl" \
    --json "$RESULT/wer.json" --html "$RESULT/wer.html"

python eval/keywords.py --normalize whisper-en --input_file sap2="$RESULT/test.prune.jsonl" --json "$RESULT/keywords.json"
