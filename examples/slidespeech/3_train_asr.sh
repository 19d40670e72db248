#!/usr/bin/env bash
# Stage two: transcribe with the keywords that stage one picks. About 30,000 s on 7 A100-40G (paper).
#
# It starts from the base model, as stage one does: the two adapters are trained apart and never merged.
set -euo pipefail
source "$(dirname "$0")/settings.sh"

train asr "$ASR_OUT" "$@"
