"""DeepSpeed on several CPU processes.

With DeepSpeed and without an accelerator, accelerate names no backend for the process group and then counts one
process where DeepSpeed counts all ("train_batch_size is not equal to …"). Naming gloo is the whole repair. It changes
nothing where a GPU or another accelerator is present.
"""

from __future__ import annotations

import functools
import os


def patch_accelerate() -> None:
    """Let accelerate use gloo for DeepSpeed where there is no accelerator. Calling it again does nothing."""
    from accelerate.state import PartialState

    original = PartialState._prepare_backend
    if getattr(original, "_sap2_gloo", False):
        return

    @functools.wraps(original)
    def prepare_backend(self, *args, **kwargs):
        backend, distributed_type = original(self, *args, **kwargs)
        deepspeed = os.environ.get("ACCELERATE_USE_DEEPSPEED", "false").lower() == "true"
        if backend is None and deepspeed and int(os.environ.get("LOCAL_RANK", -1)) != -1:
            backend = "gloo"
        return backend, distributed_type

    prepare_backend._sap2_gloo = True
    PartialState._prepare_backend = prepare_backend
