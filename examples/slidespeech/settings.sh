# Paths and sizes of the SlideSpeech recipe; the scripts beside this file read it. Set any of them in the environment.
#
# Paper (arXiv 2511.11139): SlideSpeech L95 with the keywords of 5 slides, window 2, LoRA on projector and language model.
# There, on 7 A100 of 40 GB: about 38,000 s for stage one and 30,000 s for stage two; without compression about 60,000 s.

: "${CORPUS:=/data/slidespeech}"             # L95/, dev/ and test/ with segments, text, keywords, wav.scp
: "${WORK:=work/slidespeech}"                # everything that is made goes here
: "${MODEL:=Qwen/Qwen2-Audio-7B-Instruct}"   # a name of the hub, or a folder
: "${GPUS:=8}"
: "${SLIDES:=5}"                             # 1, 5, 15, 25 …: each utterance's own slide and the nearest
: "${MAX_LENGTH:=4096}"                      # tokens of a row after compression

# 256 rows a step. Halve BATCH and double ACCUMULATION where the memory is short; the result is the same.
: "${BATCH:=32}"
: "${ACCUMULATION:=1}"
: "${STEPS_BETWEEN_SAVES:=500}"

PRUNE_OUT="$WORK/prune"                      # stage one's checkpoints: $PRUNE_OUT/checkpoint-N
ASR_OUT="$WORK/asr"                          # stage two's
RESULT="$WORK/result"

# The newest checkpoint of a folder. PRUNE_CHECKPOINT and ASR_CHECKPOINT name others.
newest_checkpoint() { find "$1" -maxdepth 1 -name 'checkpoint-*' | sort -V | tail -n 1; }
