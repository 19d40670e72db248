"""The retriever, trained by swift sft: alone, and on an adapter that knows other things."""

from __future__ import annotations

import json

from safetensors.torch import load_file

from .conftest import losses, run_swift, sft_arguments

STEPS = 2
SHORT = ("--max_steps", str(STEPS), "--save_steps", str(STEPS), "--sap_train", "retriever", "--learning_rate", "1e-3")


def test_an_adapter_gets_a_retriever_and_keeps_what_it_knows(corpus, trained, tmp_path):
    """On two processes; the language model does not run."""
    arguments = sft_arguments("sap2-tiny", corpus.train, tmp_path, *SHORT, "--adapters", str(trained.checkpoint))
    run_swift(*arguments, NPROC_PER_NODE="2")
    checkpoint = tmp_path / f"checkpoint-{STEPS}"
    before, after = (load_file(folder / "adapter_model.safetensors") for folder in (trained.checkpoint, checkpoint))
    assert all((after[name] == value).all() for name, value in before.items())
    added = {name: value for name, value in after.items() if name not in before}
    assert len(added) == 12 and all(".retriever." in name for name in added)
    assert any(value.any() for name, value in added.items() if "presence" in name)
    found = losses(tmp_path)  # untrained, it is ln 2; a rank whose batch has no term counts 0
    assert len(found) == STEPS and all(0 < loss < 0.7 for loss in found.values())
    args = json.loads((checkpoint / "args.json").read_text())
    assert args["sap_retriever"] is True and args["sap_spotter"] is True
