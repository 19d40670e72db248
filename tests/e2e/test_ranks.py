"""Ranks of one run whose batches hold different things do not wait for each other."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from sap2.tiny.checkpoint import make_tiny

from .conftest import environment

HELPERS = Path(__file__).parents[1] / "helpers"

pytestmark = pytest.mark.timeout(600)


@pytest.mark.parametrize("pooling", ["attention", "salience"])
def test_zero3_with_batches_that_differ_in_each_way(tmp_path, pooling):
    """Audio, context, both or neither on one rank, anything else on the other, in training and in evaluation."""
    model = make_tiny(tmp_path / "model")
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "--standalone"]
    done = subprocess.run(
        [*torchrun, str(HELPERS / "ranks.py"), str(model), pooling],
        env=environment(PYTHONPATH=str(HELPERS.parents[1]), DS_SKIP_CUDA_CHECK="1"),
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    assert "rank 0 done" in done.stdout and "rank 1 done" in done.stdout
