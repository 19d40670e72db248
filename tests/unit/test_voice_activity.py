"""Where somebody speaks: at any share of speech, noise and volume, by the network and by the energy."""

from __future__ import annotations

import builtins

import bench_vad
import numpy as np
import pytest
import torch

from sap2.pipeline import voice_activity
from sap2.pipeline.segmentation import Cutting, cut_at_pauses
from sap2.pipeline.voice_activity import DETECTORS, choose_detector, detect_by_energy, detect_by_silero, frame_levels

RATE = 16_000


@pytest.mark.parametrize("detector", DETECTORS)
@pytest.mark.parametrize("noise", ["none", "white -80", "white -60"])
def test_speech_that_is_a_twentieth_of_a_recording_is_kept_and_nothing_else(detector, noise):
    result = bench_vad.measure(bench_vad.make_talk(3, 0.05, noise), DETECTORS[detector])
    assert result.lost == 0 and result.kept > 0.98
    assert result.dropped > 0.98


@pytest.mark.parametrize("volume", [1.0, 0.02])
@pytest.mark.parametrize("share", [0.05, 0.2])
def test_the_network_hears_speech_in_loud_changing_noise_at_any_volume(share, volume):
    result = bench_vad.measure(bench_vad.make_talk(2, share, "pink -35", volume), detect_by_silero)
    assert result.lost == 0 and result.kept > 0.95
    assert result.dropped > 0.9


@pytest.mark.parametrize("detector", DETECTORS)
def test_silence_and_faint_noise_hold_no_speech(detector):
    faint = np.random.default_rng(0).normal(0, 1e-5, 5 * RATE).astype(np.float32)
    for samples in (np.zeros(5 * RATE, np.float32), np.zeros(10, np.float32), np.zeros(0, np.float32), faint):
        assert DETECTORS[detector](samples, RATE) == []


def test_the_network_hears_no_speech_in_noise():
    noise = np.random.default_rng(0).normal(0, 0.05, 20 * RATE).astype(np.float32)
    assert detect_by_silero(noise, RATE) == []


def test_a_recording_heard_in_blocks_has_the_speech_of_one_heard_at_once(monkeypatch):
    samples = bench_vad.make_talk(1, 0.6, "white -45").samples
    whole = detect_by_silero(samples, RATE)
    monkeypatch.setattr(voice_activity, "_SILERO_BLOCK", 500)
    blocks = detect_by_silero(samples, RATE)
    assert len(blocks) == len(whole) > 3
    assert np.abs(np.array(blocks) - np.array(whole)).max() <= 0.1 * RATE


def test_levels_of_a_long_recording_are_those_of_its_parts(monkeypatch):
    samples = np.random.default_rng(0).normal(0, 0.1, 3 * RATE + 77)
    expected = frame_levels(samples, 160)
    monkeypatch.setattr(voice_activity, "_BLOCK_SECONDS", 1)
    assert np.allclose(frame_levels(samples, 160), expected)


def test_loading_the_network_leaves_the_threads_of_torch_alone():
    voice_activity._silero.cache_clear()
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        choose_detector("silero")
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_where_the_network_cannot_be_loaded_the_energy_cuts_and_says_so(monkeypatch):
    real = builtins.__import__

    def without(name, *args, **kwargs):
        if name.startswith("silero_vad"):
            raise ImportError("no silero_vad")
        return real(name, *args, **kwargs)

    voice_activity._silero.cache_clear()
    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.warns(UserWarning, match="cut by their energy, since silero-vad cannot be loaded: no silero_vad"):
        assert choose_detector() is detect_by_energy
    with pytest.raises(ImportError):
        choose_detector("silero")
    with pytest.raises(ValueError, match="--vad 'webrtc' is unknown; allowed: silero, energy"):
        choose_detector("webrtc")


def test_the_network_hears_16_kilohertz():
    with pytest.raises(ValueError, match="the audio has 8000 samples a second; allowed: 16000"):
        detect_by_silero(np.zeros(8000, np.float32), 8000)


def test_pieces_hold_the_soft_ends_of_sentences():
    talk = bench_vad.make_talk(2, 0.2, "white -60")
    pieces = cut_at_pauses(talk.samples, RATE, Cutting(30), detect_by_silero)
    inside = np.zeros(len(talk.samples), bool)
    for first, last in pieces:
        inside[first:last] = True
    for first, last in talk.sentences:
        spoken = np.flatnonzero(talk.speech[first:last]) + first
        assert inside[spoken[: RATE // 20]].mean() > 0.8 and inside[spoken[-RATE // 20 :]].mean() > 0.8
