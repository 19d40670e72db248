# LibriSpeech with biasing lists (Le et al. 2021). Paper, test-clean: WER 1.12 %.
#
# LIBRISPEECH: the extracted corpus (LibriSpeech/train-clean-100, …, from openslr 12).
# BIASING: the published lists of facebookresearch/fbai-speech, is21_deep_bias: ref/test-clean.biasing_100.tsv, …,
#          words/common_words_5k.txt, words/all_rare_words.txt.

: "${LIBRISPEECH:=/data/LibriSpeech}"
: "${BIASING:=/data/is21_deep_bias}"
: "${WORK:=work/librispeech}"
: "${MODEL:=Qwen/Qwen2-Audio-7B-Instruct}"
: "${GPUS:=8}"
: "${DTYPE:=bfloat16}"
: "${BATCH:=32}"
: "${ACCUMULATION:=1}"
: "${DISTRACTORS:=100-1000}"                # other words in a list of the training
: "${LIST:=1000}"                            # words of a test list: 100, 500, 1000 or 2000
newest_checkpoint() { find "$1" -maxdepth 1 -name 'checkpoint-*' | sort -V | tail -n 1; }
