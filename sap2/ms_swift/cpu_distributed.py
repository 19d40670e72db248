"""Several processes on a CPU.

Without an accelerator, accelerate names no backend for the processes of torchrun (unless it is told ``--use_cpu``,
which turns DeepSpeed off) and then counts one process where there are several: DeepSpeed refuses to start
("train_batch_size is not equal to …"), plain training runs as independent copies, and ``swift infer`` writes the
results of rank 0 alone. Naming gloo is the whole repair.

A process that ends with gloo's threads alive may be ended by them ("terminate called without an active exception"),
after all its work, with an exit code that says it failed; so the group is left before the end.

DeepSpeed also compiles an all-reduce through shared memory when it first runs on a CPU, which takes a minute and a C++
compiler; gloo does the same without. Nothing changes where a GPU or another accelerator is present.
"""

from __future__ import annotations

import atexit
import functools
import importlib
import os


def patch_accelerate() -> None:
    """Repair both where there is no accelerator. Calling it again does nothing."""
    from accelerate.state import PartialState
    from accelerate.utils import DistributedType

    original = PartialState._prepare_backend
    if getattr(original, "_sap2_gloo", False):
        return

    @functools.wraps(original)
    def prepare_backend(self, *args, **kwargs):
        backend, distributed_type = original(self, *args, **kwargs)
        if backend is None and int(os.environ.get("LOCAL_RANK", -1)) != -1:
            backend = "gloo"
            atexit.register(leave_group)
            if os.environ.get("ACCELERATE_USE_DEEPSPEED", "false").lower() == "true":
                _use_gloo_alone()
            else:
                distributed_type = DistributedType.MULTI_CPU
        return backend, distributed_type

    prepare_backend._sap2_gloo = True
    PartialState._prepare_backend = prepare_backend


def leave_group() -> None:
    """End the threads of the processes' connections, where there are any."""
    import torch.distributed as dist

    if dist.is_available() and dist.is_initialized():
        dist.destroy_process_group()


def _use_gloo_alone() -> None:
    # not "import … as": the attribute of that name is PyTorch
    importlib.import_module("deepspeed.comm.torch").build_shm_op = lambda: None
