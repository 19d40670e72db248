"""Noise: as far below the speech as was asked for, the same for one seed and key; rooms and lines as they are."""

from __future__ import annotations

import numpy as np
import pytest
import soundfile

from sap2.augment import effects
from sap2.augment.noisy import EFFECT_SHARE, Disturber
from sap2.augment.options import (
    DEFAULT_KINDS,
    EFFECTS,
    KINDS,
    SOUNDS,
    Distance,
    NoiseOptions,
    parse_distance,
    parse_kinds,
)
from sap2.augment.sources import NoiseFolder
from sap2.errors import InputError

RATE = 16_000


@pytest.fixture(scope="module")
def speech(speeches):
    return speeches[0]


def voice(rng):
    """Somebody else: a tone that comes and goes."""
    time = np.arange(RATE) / RATE
    return np.sin(2 * np.pi * rng.uniform(200, 900) * time) * (np.sin(2 * np.pi * 3 * time) > 0)


def disturber(*kinds, distance=10.0, share=1.0, **more):
    return Disturber(NoiseOptions(Distance(distance, distance), kinds or DEFAULT_KINDS, share, **more), RATE, voice)


def ratio(speech, noisy):
    """Distance in dB of what was added."""
    return 10 * np.log10(np.mean(np.square(speech, dtype=float)) / np.mean(np.square(noisy - speech, dtype=float)))


@pytest.fixture(scope="module")
def musan(tmp_path_factory):
    """A noise folder in MUSAN's layout: tones, a different one for each kind."""
    folder = tmp_path_factory.mktemp("musan")
    for place, tone in {"noise/free-sound/a.wav": 1000, "speech/us-gov/b.flac": 2000, "music/jazz/c.wav": 3000}.items():
        (folder / place).parent.mkdir(parents=True)
        soundfile.write(folder / place, 0.3 * np.sin(2 * np.pi * tone * np.arange(3 * RATE) / RATE), RATE)
    (folder / "README").write_text("MUSAN")
    return folder


# --- sounds


@pytest.mark.parametrize("own", [False, True])
@pytest.mark.parametrize("distance", [-5.0, 0.0, 10.0, 30.0])
@pytest.mark.parametrize("kind", SOUNDS)
def test_the_distance_is_the_one_that_was_asked_for(speech, musan, kind, distance, own):
    quiet = speech * np.float32(0.1)  # nothing is above full scale
    noisy = disturber(kind, distance=distance, folder=str(musan) if own else None)(quiet, "row")
    assert noisy.shape == quiet.shape and noisy.dtype == np.float32
    assert ratio(quiet, noisy) == pytest.approx(distance, abs=0.01)


def test_a_loud_outcome_is_made_quieter_as_a_whole(speech):
    loud = speech / np.abs(speech).max()
    noisy = disturber("noise", distance=0.0)(loud, "row")
    assert np.abs(noisy).max() == pytest.approx(0.99, abs=1e-3)
    scale = np.dot(noisy, loud) / np.dot(loud, loud)
    assert scale < 0.9 and ratio(scale * loud, noisy) == pytest.approx(0, abs=0.5)


def test_distances_lie_in_their_range(speech):
    options = NoiseOptions(Distance(5, 15), ("noise",), 1.0)
    found = [ratio(speech / 10, Disturber(options, RATE)(speech / 10, str(key))) for key in range(30)]
    assert 5 <= min(found) < 8 and 12 < max(found) <= 15


@pytest.mark.parametrize("kind", KINDS)
def test_a_seed_and_a_key_give_one_outcome(speech, kind):
    once = disturber(kind, distance=5.0)
    first, second = once(speech, "a"), once(speech, "b")
    again = disturber(kind, distance=5.0)  # as in another worker, which sees other rows before
    assert np.array_equal(again(speech, "b"), second) and np.array_equal(again(speech, "a"), first)
    if kind == "telephone":  # which has nothing to draw
        return
    keys = "abcdef"  # there are four codecs
    outcomes = [once(speech, key) for key in keys]
    others = ([once(speech, key, epoch=1) for key in keys], [disturber(kind, seed=1)(speech, key) for key in keys])
    assert any(not np.array_equal(first, outcome) for outcome in outcomes)
    for other in others:
        assert any(not np.array_equal(one, two) for one, two in zip(outcomes, other, strict=True))


def test_the_share_of_rows(speech):
    noisy = disturber("noise", share=0.3)
    changed = [not np.array_equal(noisy(speech, str(key)), speech) for key in range(300)]
    assert 0.2 < np.mean(changed) < 0.4


def test_a_row_gets_one_sound_and_now_and_then_an_effect():
    drawn = [disturber(*KINDS)._choose(np.random.default_rng(number)) for number in range(400)]
    assert {steps["sound"] for steps in drawn} == set(SOUNDS)
    for effect in EFFECTS:
        assert abs(np.mean([effect in steps for steps in drawn]) - EFFECT_SHARE) < 0.1
    alone = [disturber(*EFFECTS)._choose(np.random.default_rng(number)) for number in range(100)]
    assert {effect for steps in alone for effect in steps} == set(EFFECTS) and {len(steps) for steps in alone} == {1}


@pytest.mark.parametrize("kind", KINDS)
def test_what_comes_out_is_sound(speech, kind):
    for samples in (speech, speech[:1600], np.pad(speech, (0, RATE))):
        noisy = disturber(kind, distance=0.0)(samples, "row")
        assert noisy.dtype == np.float32 and np.isfinite(noisy).all() and np.abs(noisy).max() <= 1
        assert len(noisy) == len(samples) or kind == "speed"


def test_silence_stays_silence():
    nothing = np.zeros(RATE, np.float32)
    assert disturber(*DEFAULT_KINDS)(nothing, "row") is nothing


# --- recordings of noise


def loudest_tone(samples):
    return np.argmax(np.abs(np.fft.rfft(samples))) * RATE / len(samples)


@pytest.mark.parametrize(("kind", "tone"), [("noise", 1000), ("babble", 2000), ("hum", 3000)])
def test_musan_has_a_folder_for_each_kind(musan, kind, tone):
    noisy = disturber(kind, folder=str(musan))(np.full(RATE, 0.01, np.float32), "row")
    assert abs(loudest_tone(noisy - np.mean(noisy)) - tone) < 20


def test_any_other_folder_is_noise_and_the_rest_is_made(tmp_path):
    (tmp_path / "deep").mkdir()
    soundfile.write(tmp_path / "deep" / "hall.wav", 0.3 * np.sin(2 * np.pi * 1000 * np.arange(RATE) / RATE), RATE)
    folder = NoiseFolder(tmp_path)
    assert list(folder.files) == ["noise"]
    clip = folder.clip("noise", 3 * RATE, RATE, np.random.default_rng(0))
    assert len(clip) == 3 * RATE and np.mean(clip**2) == pytest.approx(1, abs=1e-3), "again from its beginning"
    assert len(disturber("hum", folder=str(tmp_path))(np.full(RATE, 0.1, np.float32), "row")) == RATE


def test_folders_that_are_none(tmp_path):
    with pytest.raises(InputError, match=r"noise folder .*nothere does not exist; allowed: a folder of recordings"):
        disturber("noise", folder=str(tmp_path / "nothere"))
    (tmp_path / "notes.txt").write_text("no sound")
    with pytest.raises(InputError, match="holds no recording; allowed: wav, flac"):
        disturber("noise", folder=str(tmp_path))
    soundfile.write(tmp_path / "silent.wav", np.r_[np.zeros(RATE), 1e-4], RATE)
    with pytest.raises(InputError, match=r"4 recordings in a row are silent, the last is .*silent\.wav"):
        disturber("noise", folder=str(tmp_path))(np.full(1600, 0.1, np.float32), "row")


def test_babble_needs_voices(speech):
    alone = Disturber(NoiseOptions(Distance(0, 0), ("babble",), 1.0), RATE)
    with pytest.raises(InputError, match="babble needs voices; allowed: a noise folder with speech/, or kinds without"):
        alone(speech, "row")


# --- rooms and lines


def test_rooms_echo_for_as_long_as_rooms_do():
    lengths = []
    for number in range(8):
        response = effects.room_response(0, number, RATE)
        assert np.argmax(np.abs(response)) == 0, "the direct sound is where the speech was"
        left = np.cumsum(response[::-1] ** 2)[::-1]
        lengths.append(np.argmax(left < left[0] * 1e-2) / RATE)  # 20 dB less
    assert min(lengths) > 0.01 and max(lengths) < 0.7 and max(lengths) > 2 * min(lengths)


def test_an_echo_is_heard_after_the_speech_and_is_as_loud(speech):
    padded = np.pad(speech, (0, RATE))
    heard = disturber("room")(padded, "row")
    assert np.mean(heard**2) == pytest.approx(np.mean(padded**2), rel=1e-3)
    assert np.abs(heard[len(speech) + 200 : len(speech) + 1000]).max() > 1e-4
    lag = np.argmax(np.fft.irfft(np.fft.rfft(heard) * np.conj(np.fft.rfft(padded))))
    assert min(lag, len(padded) - lag) < 0.01 * RATE


def test_a_telephone_cuts_the_band(speech):
    noisy = disturber("telephone")(speech, "row")
    power = np.abs(np.fft.rfft(noisy)) ** 2 / np.maximum(np.abs(np.fft.rfft(speech)) ** 2, 1e-9)
    frequencies = np.fft.rfftfreq(len(speech), 1 / RATE)
    assert np.median(power[(frequencies < 200) | (frequencies > 3600)]) < 1e-4
    assert np.median(power[(frequencies > 400) & (frequencies < 3300)]) == pytest.approx(1, rel=0.01)


def test_codecs_are_in_time(speech):
    found = {round(ratio(speech, disturber("codec")(speech, str(key))), 1) for key in range(12)}
    assert len(found) == 4 and min(found) > 3, "all four, none of them shifted"


def test_speed_never_makes_more_than_fits(speech):
    lengths = [len(disturber("speed")(speech, str(key))) / len(speech) for key in range(20)]
    assert 0.9 < min(lengths) < 0.97 and 1.03 < max(lengths) < 1.12
    most = len(speech) + 100
    assert max(len(disturber("speed")(speech, str(key), most=most)) for key in range(20)) <= most


# --- options


@pytest.mark.parametrize(("text", "distance"), [("0:20", (0, 20)), ("10", (10, 10)), ("-5:2.5", (-5, 2.5))])
def test_distances(text, distance):
    assert parse_distance(text) == distance


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("20:0", "--sap_noise is '20:0', and 20 is more than 0; allowed: LOW:HIGH"),
        ("loud", "--sap_noise is 'loud'; allowed: LOW:HIGH in dB, such as 0:20, or one number"),
        ("1:2:3", "allowed: LOW:HIGH in dB"),
        ("", "allowed: LOW:HIGH in dB"),
        ("nan", "allowed: LOW:HIGH in dB"),
        ("0:99", "--sap_noise is '0:99'; allowed: -20 to 60 dB"),
    ],
)
def test_bad_distances(text, message):
    with pytest.raises(InputError, match=message):
        parse_distance(text)


def test_kinds():
    assert parse_kinds("room, babble,room") == ("room", "babble")
    for text in ("", "rain", "noise,rain"):
        with pytest.raises(InputError, match=r"--sap_noise_kinds is .*; allowed: noise, babble, hum, room"):
            parse_kinds(text)


@pytest.mark.parametrize(
    ("more", "message"),
    [({"share": 0.0}, "share of noisy recordings is 0.0; allowed: above 0, to 1"), ({"seed": -1}, "seed of the noise")],
)
def test_bad_options(more, message):
    with pytest.raises(InputError, match=message):
        disturber("noise", **more)
