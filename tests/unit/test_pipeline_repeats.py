"""What comes again with each request of a caller is done once: its list is encoded, and the adapter stays."""

from __future__ import annotations

import pytest
from pipeline_helpers import SYSTEM
from pipeline_rows import KEYWORDS

from sap2.errors import InputError
from sap2.model.context import expand_contexts
from sap2.pipeline import prompting
from sap2.pipeline.loading import LoadedModel
from sap2.pipeline.prompting import Encoder
from sap2.pipeline.stages import stage_content


@pytest.fixture(scope="module")
def loaded(tiny, prune, asr):
    return LoadedModel(str(tiny), {"prune": prune, "asr": asr})


def test_a_list_that_comes_again_is_encoded_once(loaded, monkeypatch):
    seen = []
    monkeypatch.setattr(prompting, "expand_contexts", lambda *args: seen.append(args[0]) or expand_contexts(*args))
    encoder = Encoder(loaded.processor, 8192)
    prompts = [encoder.prompt(stage_content("asr", KEYWORDS), system, 5) for system in (SYSTEM, SYSTEM, "Be brief.")]
    assert len(seen) == 1 and prompts[0] == prompts[1] != prompts[2]
    for _ in range(2):  # what is long is not kept
        with pytest.raises(InputError, match="the model takes 8192"):
            encoder.prompt(stage_content("asr", ["emily"] * 10_000), SYSTEM, 5)
    assert len(seen) == 3


def test_the_adapter_is_set_when_another_stage_speaks(loaded, monkeypatch):
    chosen = []
    set_adapter = loaded._peft.set_adapter
    monkeypatch.setattr(loaded._peft, "set_adapter", lambda name, **kw: chosen.append(name) or set_adapter(name, **kw))
    for stage in ("asr", "asr", "prune", "prune", "joint", "prune", "asr"):
        with loaded.use(stage):
            assert stage == "joint" or loaded._peft.active_adapter == stage
    assert chosen == ["asr", "prune", "asr"]
