#!/usr/bin/env bash
# Go on with a training that was killed, from its newest checkpoint: optimizer, schedule, random state and place in the
# data are restored. The SAP² settings come from the checkpoint; a flag that contradicts them is an error.
# Decoding needs nothing of the kind: start 4_decode.sh again.
set -euo pipefail
source "$(dirname "$0")/settings.sh"

bash "$(dirname "$0")/2_train_prune.sh" --resume_from_checkpoint "${PRUNE_CHECKPOINT:=$(newest_checkpoint "$PRUNE_OUT")}"
