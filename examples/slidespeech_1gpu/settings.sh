# The SlideSpeech recipe on one GPU: the same rows, the same 256 rows a step, in steps of 4.
#
# By arithmetic, not measured: 17 GB are the model in bfloat16; a batch of 4 with 4096 tokens and gradient checkpointing
# takes some 10 GB more, so that 40 GB are enough. On 24 GB: BATCH=1 ACCUMULATION=256 MAX_LENGTH=2048. The paper's 38,000 s
# and 30,000 s on 7 GPUs are about 74 and 58 hours on one; SLIDES=1 and the corpus' smaller training set S95 are a first
# step.

: "${GPUS:=1}"
: "${BATCH:=4}"
: "${ACCUMULATION:=64}"
ZERO=                                        # one GPU has nobody to share with
source "$(dirname "${BASH_SOURCE[0]}")/../slidespeech/settings.sh"
