#!/usr/bin/env bash
# Stage two on one GPU.
set -euo pipefail
source "$(dirname "$0")/settings.sh"

train asr "$ASR_OUT" "$@"
