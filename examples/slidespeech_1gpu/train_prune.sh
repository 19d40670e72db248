#!/usr/bin/env bash
# Stage one on one GPU. 1_prepare.sh of ../slidespeech comes first.
set -euo pipefail
source "$(dirname "$0")/settings.sh"

train prune "$PRUNE_OUT" "$@"
