#!/usr/bin/env bash
# Stage one: pick the keywords of the list that are spoken. About 38,000 s on 7 A100-40G (paper).
set -euo pipefail
source "$(dirname "$0")/settings.sh"

train prune "$PRUNE_OUT" "$@"
