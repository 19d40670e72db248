#!/usr/bin/env bash
# One recording of any length and its slides, to text and to subtitles.
set -euo pipefail
: "${MODEL:=Qwen/Qwen2-Audio-7B-Instruct}" "${PRUNE_CHECKPOINT:=work/prune}" "${ASR_CHECKPOINT:=work/asr}"

sap2 transcribe talk.wav --keywords slides.pdf \
    --model "$MODEL" --prune-adapter "$PRUNE_CHECKPOINT" --asr-adapter "$ASR_CHECKPOINT"

# Subtitles of at most 10 s; talks.csv says which slide was shown when (columns id, audio, start, end, slide).
sap2 transcribe talk.wav --keywords slides.pdf --manifest talks.csv \
    --model "$MODEL" --prune-adapter "$PRUNE_CHECKPOINT" --asr-adapter "$ASR_CHECKPOINT" \
    --format srt --output talk.srt --max-segment-seconds 10
