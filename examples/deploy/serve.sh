#!/usr/bin/env bash
# An OpenAI-compatible server for each adapter: stage one on port 8001, stage two on port 8000. Ctrl-C or TERM ends both.
#
#   bash examples/deploy/serve.sh &
#   python examples/deploy/client.py talk.flac --keywords "emily, wozniak" --prune-url http://127.0.0.1:8001/v1
#
# One server with both adapters by name (--adapters prune=… asr=…) would decode one request at a time.
set -euo pipefail
: "${PRUNE_CHECKPOINT:?folder of the stage-one checkpoint}" "${ASR_CHECKPOINT:?folder of the stage-two checkpoint}"
: "${PRUNE_PORT:=8001}" "${ASR_PORT:=8000}"

# Each server in a process group of its own: swift starts children, and all of them hold the GPU.
set -m
serve() { # GPU CHECKPOINT PORT
    CUDA_VISIBLE_DEVICES="$1" swift deploy --adapters "$2" --host 127.0.0.1 --port "$3" \
        --temperature 0 --max_new_tokens 512 --max_batch_size 8
}
serve "${PRUNE_GPU:-0}" "$PRUNE_CHECKPOINT" "$PRUNE_PORT" &
prune_server=$!
serve "${ASR_GPU:-0}" "$ASR_CHECKPOINT" "$ASR_PORT" &
asr_server=$!

end() {
    trap - EXIT INT TERM
    kill -- "-$prune_server" "-$asr_server" 2>/dev/null || true
    for _ in $(seq 50); do # they get ten seconds to finish what they are at
        kill -0 -- "-$prune_server" 2>/dev/null || kill -0 -- "-$asr_server" 2>/dev/null || return 0
        sleep 0.2
    done
    kill -KILL -- "-$prune_server" "-$asr_server" 2>/dev/null || true
}
trap end EXIT
trap 'end; exit 143' TERM
trap 'end; exit 130' INT

wait -n # as soon as one of them ends, the other is of no use
