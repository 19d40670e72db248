#!/usr/bin/env bash
# What sap2-tiny is worth on 16 talks that nobody heard, with lists of 5 slides: no list, a useless list, the list, both
# stages, and the list among 500 keywords. By default of the model that comes with sap2; 9 to 25 minutes of one CPU core,
# and it goes on where it was stopped. Everything lands in $RUN.
set -euo pipefail
cd "$(dirname "$0")/../.."

. examples/sap2_tiny/common.sh
MODEL=${MODEL:-sap2-tiny} PRUNE=${PRUNE:-sap2-tiny-prune} ASR=${ASR:-sap2-tiny-asr}

make_talks
utterances test 5
[ -f "$RUN/test.keywords" ] || python examples/sap2_tiny/lists.py "$RUN/test-5.jsonl" "$RUN/test"
decode() { # RESULT UTTERANCES FLAGS…; goes on where it was. The longest sentence has 47 letters
    sap2 pipeline --model "$MODEL" --val_dataset "$RUN/test.$2.jsonl" --result_path "$RUN/result.$1.jsonl" \
        --asr-adapter "$ASR" --batch_size 32 --max_new_tokens 64 "${@:3}"
}
decode none none
decode useless useless
decode list list
decode stages list --prune-adapter "$PRUNE"
decode spot list --pruner spot
decode long long
decode long-stages long --prune-adapter "$PRUNE"
decode long-spot long --pruner spot
python eval/slidespeech_wer.py --keywords "$RUN/test.keywords" --input_file "no list=$RUN/result.none.jsonl" \
    --input_file "useless list=$RUN/result.useless.jsonl" --input_file "list=$RUN/result.list.jsonl" \
    --input_file "two stages=$RUN/result.stages.jsonl" --input_file "the spotter's picks=$RUN/result.spot.jsonl" \
    --input_file "500 keywords=$RUN/result.long.jsonl" \
    --input_file "500 keywords, two stages=$RUN/result.long-stages.jsonl" \
    --input_file "500 keywords, the spotter's picks=$RUN/result.long-spot.jsonl" --json "$RUN/wer.json"
for lists in stages spot long-stages long-spot; do
    python eval/keywords.py --input_file "$RUN/result.$lists.prune.jsonl" --json "$RUN/keywords.$lists.json"
done
