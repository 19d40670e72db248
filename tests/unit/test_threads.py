"""How many threads of torch work on a CPU."""

from __future__ import annotations

import pytest
import torch

from sap2.pipeline import threads
from sap2.pipeline.loading import LoadedModel
from sap2.pipeline.threads import SMALL_WIDTH, generating_threads, is_small, listening_threads


@pytest.fixture(autouse=True)
def two_threads(monkeypatch):
    """As torch begins with them on two cores."""
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def test_a_small_model_is_loaded_for_one_thread(tiny):
    LoadedModel(str(tiny), {"asr": None}, "cpu")
    assert torch.get_num_threads() == 1


def test_who_has_chosen_is_not_overruled(tiny, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    LoadedModel(str(tiny), {"asr": None}, "cpu")
    assert torch.get_num_threads() == 2


@pytest.mark.parametrize(("cores", "listening", "generating"), [(1, 1, 1), (2, 1, 1), (16, 2, 14)])
def test_a_large_model_has_all_cores(monkeypatch, cores, listening, generating):
    monkeypatch.setattr(threads.os, "sched_getaffinity", lambda pid: set(range(cores)))
    assert not is_small(SMALL_WIDTH) and is_small(SMALL_WIDTH - 1)
    assert listening_threads() == listening
    assert generating_threads(4096) == generating and generating_threads(128) == 1
