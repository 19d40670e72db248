"""Several processes on a CPU: the backend that accelerate does not name, and an orderly end."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap

PROGRAM = """
    import atexit
    import torch.distributed as dist
    atexit.register(lambda: print("left" if not dist.is_initialized() else "still in"))  # runs last
    from sap2.ms_swift.cpu_distributed import patch_accelerate
    patch_accelerate()
    patch_accelerate()
    from accelerate.state import PartialState
    print(PartialState().backend, dist.get_world_size())
"""


def test_a_process_leaves_its_group_before_it_ends():
    variables = {"LOCAL_RANK": "0", "RANK": "0", "WORLD_SIZE": "1", "LOCAL_WORLD_SIZE": "1", "MASTER_ADDR": "localhost"}
    variables |= {"MASTER_PORT": "0", "CUDA_VISIBLE_DEVICES": ""}  # 0: any that is free
    command = [sys.executable, "-c", textwrap.dedent(PROGRAM)]
    done = subprocess.run(command, env={**os.environ, **variables}, capture_output=True, text=True, timeout=120)
    assert done.stdout.splitlines() == ["gloo 1", "left"], done.stderr
