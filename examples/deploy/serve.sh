#!/usr/bin/env bash
# An OpenAI-compatible server for each adapter: stage one on port 8001, stage two on port 8000.
#
#   bash examples/deploy/serve.sh &
#   python examples/deploy/client.py talk.flac --keywords "emily, wozniak" --prune_url http://127.0.0.1:8001/v1
#
# One server with both adapters by name (--adapters prune=… asr=…) would decode one request at a time.
set -euo pipefail
: "${PRUNE_CHECKPOINT:?folder of the stage-one checkpoint}" "${ASR_CHECKPOINT:?folder of the stage-two checkpoint}"

CUDA_VISIBLE_DEVICES="${PRUNE_GPU:-0}" swift deploy --adapters "$PRUNE_CHECKPOINT" --host 127.0.0.1 --port 8001 \
    --temperature 0 --max_new_tokens 512 --max_batch_size 8 &
prune_server=$!
trap 'kill "$prune_server" 2>/dev/null || true' EXIT
CUDA_VISIBLE_DEVICES="${ASR_GPU:-0}" swift deploy --adapters "$ASR_CHECKPOINT" --host 127.0.0.1 --port 8000 \
    --temperature 0 --max_new_tokens 512 --max_batch_size 8
