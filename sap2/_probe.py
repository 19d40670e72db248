"""What a fresh interpreter finds about torch, DeepSpeed and the plugin; the source is run by :mod:`sap2.doctor`.

One line of JSON a subject, printed as soon as it is known, so that a later crash or hang leaves the earlier answers.
Standard library only at the top: any package may be broken.
"""

import json
import os
import shutil
import sys


def gpu():
    import torch

    devices = []
    for index in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
        free, total = torch.cuda.mem_get_info(index)
        name = torch.cuda.get_device_name(index)
        devices.append({"index": index, "name": name, "free_gib": free / 2**30, "total_gib": total / 2**30})
    return {
        "devices": devices,
        "built_for": torch.version.cuda and f"CUDA {torch.version.cuda}",
        "driver": shutil.which("nvidia-smi") is not None,
        "bf16": bool(devices) and torch.cuda.is_bf16_supported(),
    }


def deepspeed():
    variable = os.environ.get("DS_ACCELERATOR")
    import deepspeed.accelerator as accelerator

    home = os.environ.get("CUDA_HOME") or os.environ.get("CUDA_PATH")
    nvcc = shutil.which("nvcc", path=home and f"{home}/bin") or shutil.which("nvcc")
    return {
        "accelerator": accelerator.get_accelerator().device_name(),
        "variable": variable,
        "cuda_home": home,
        "nvcc": nvcc,
    }


def plugin():
    import dataclasses

    from swift.arguments import BaseArguments
    from swift.model import MODEL_MAPPING

    # not imported here: that alone would load the plugin, which the swift command does not do
    autoload = sys.modules.get("sap2._autoload")
    fields = [field.name for field in dataclasses.fields(BaseArguments)]
    return {
        "model_type": "sap_qwen2_audio" in MODEL_MAPPING,
        "flags": [name for name in fields if name.startswith("sap_")],
        "reason": "; ".join(autoload.status["errors"]) if autoload else "",
    }


def names():
    from sap2.relied_on import EVERYTHING, complaints

    return {"count": len(EVERYTHING), "complaints": complaints()}


def speech():
    from sap2 import Transcriber
    from sap2.tiny.speech import speak

    said = "now wailtol gives the road again"
    transcriber = Transcriber("sap2-tiny", prune_adapter="sap2-tiny-prune", asr_adapter="sap2-tiny-asr", device="cpu")
    return {"said": said, "heard": transcriber.transcribe(speak(said), keywords=["wailtol", "emily"]).text}


for subject in (gpu, deepspeed, plugin, names, speech):
    try:
        answer = subject()
    except BaseException as error:  # also SystemExit: whatever a package does, the next subject is asked
        answer = {"error": " ".join(f"{type(error).__name__}: {error}".split())[:300]}
    sys.stdout.write("\nSAP2-PROBE " + json.dumps({subject.__name__: answer}) + "\n")
    sys.stdout.flush()
