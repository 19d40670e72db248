"""Recordings as people have them on their disks: each kind of file, of damage and of odd signal, built in code."""

from __future__ import annotations

import io
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
from sounds import RATE, SECONDS, assert_same_sound, encode, header_changed, sound

from sap2.audio import (
    SilentAudioError,
    load_samples,
    missing_seconds,
    probe_seconds,
    true_seconds,
)
from sap2.audio_blocks import read_blocks
from sap2.data.cutting import Cut, cut_all
from sap2.errors import InputError

av = pytest.importorskip("av")

# ---- kinds of files


@pytest.mark.parametrize(
    ("name", "codec"),
    [
        ("phone.m4a", "aac"),
        ("lecture.mp4", "aac"),
        ("lecture.mkv", "aac"),
        ("browser.webm", "libopus"),
        ("voice.aac", "aac"),
        ("voice.mp2", "mp2"),
        ("voice.ac3", "ac3"),
        ("voice.mp3", "libmp3lame"),
        ("voice.opus", "libopus"),
        ("voice.mov", "pcm_s16le"),
        ("voice.flac", "flac"),
        ("voice.aiff", "pcm_s16be"),
        ("memo.wma", "wmav2"),
        ("call.amr", "libopencore_amrnb"),
    ],
)
def test_formats_of_phones_and_lectures(tmp_path, name, codec):
    rate = 8_000 if name.endswith("amr") else 48_000
    path = encode(tmp_path / name, codec, sound(rate=rate), rate)
    lost = round(RATE * 2048 / rate) if codec == "wmav2" else 0  # ffmpeg's encoder swallows its first frame
    assert_same_sound(path, sound()[lost:], slack=0.1)
    assert probe_seconds(path) == pytest.approx(SECONDS, abs=0.1)
    assert true_seconds(path) == pytest.approx(SECONDS, abs=0.1)
    assert not missing_seconds(path, true_seconds(path))
    assert np.array_equal(load_samples(io.BytesIO(Path(path).read_bytes()), RATE), load_samples(path, RATE))


@pytest.mark.parametrize("suffix", ["mp3", "m4a", "wav"])
def test_a_piece_is_that_of_the_whole(tmp_path, suffix):
    codec = {"mp3": "libmp3lame", "m4a": "aac", "wav": "pcm_s16le"}[suffix]
    path = encode(tmp_path / f"x.{suffix}", codec, sound(6))
    piece, whole = load_samples(path, RATE, 2.0, 3.5), load_samples(path, RATE)
    assert len(piece) == 1.5 * RATE
    np.testing.assert_allclose(piece, whole[2 * RATE : round(3.5 * RATE)], atol=1e-4)


def test_a_video_without_sound_and_a_text_are_refused(tmp_path):
    silent = tmp_path / "silent.mp4"
    with av.open(str(silent), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width = stream.height = 64
        stream.pix_fmt = "yuv420p"
        container.mux(stream.encode(av.VideoFrame(64, 64, "yuv420p")))
        container.mux(stream.encode(None))
    (tmp_path / "notes.mp3").write_text("these are no sounds " * 100)
    (tmp_path / "list.m3u8").write_text(f"#EXTM3U\n#EXT-X-TARGETDURATION:4\n#EXTINF:4,\n{silent}\n")
    for path in sorted(tmp_path.iterdir()):
        for read in (probe_seconds, true_seconds, lambda p: load_samples(p, RATE)):
            with pytest.raises(
                InputError, match=rf"audio .*{path.name} cannot be read \(.*\); allowed: what libsndfile"
            ):
                read(path)


# ---- lengths that a header does not know, or has wrong


def test_flac_from_a_pipe(tmp_path):
    """Total samples 0: the encoder could not go back to fill them in."""
    path = tmp_path / "pipe.flac"
    soundfile.write(path, sound(), RATE)

    def forget(data):
        data[21] &= 0xF0
        data[22:26] = bytes(4)

    header_changed(path, forget)
    assert_same_sound(path, sound())
    assert probe_seconds(path) == pytest.approx(SECONDS)


@pytest.mark.parametrize("size", [0, 0xFFFFFFFF, 0x7FFFF000, RATE // 2])
@pytest.mark.parametrize("tail", [b"", b"LIST\x04\0\0\0INFO"])
def test_wav_whose_data_goes_on(tmp_path, size, tail):
    """A recorder that was killed, a pipe, and a header that was written once at the beginning."""
    path = tmp_path / "killed.wav"
    soundfile.write(path, sound(), RATE)
    place = path.read_bytes().find(b"data")
    header_changed(path, lambda data: data.__setitem__(slice(place + 4, place + 8), struct.pack("<I", size)))
    path.write_bytes(path.read_bytes() + tail)
    assert_same_sound(path, sound())
    assert true_seconds(path) == pytest.approx(SECONDS, abs=0.01)


def test_notes_behind_the_sound_are_not_heard(tmp_path):
    path = tmp_path / "noted.wav"
    soundfile.write(path, sound(), RATE)
    note = b"x" * 20_000
    path.write_bytes(path.read_bytes() + b"note" + struct.pack("<I", len(note)) + note)
    assert len(load_samples(path, RATE)) == SECONDS * RATE


@pytest.mark.parametrize("suffix", ["flac", "wav", "mp3", "mp4"])
def test_half_a_download(tmp_path, suffix):
    """What is there is heard, a piece of what is not is an error with both lengths, and what lacks is known."""
    path = tmp_path / f"half.{suffix}"
    codec = {"flac": "flac", "wav": "pcm_s16le", "mp3": "libmp3lame", "mp4": "aac"}[suffix]
    encode(path, codec, sound(20), **({"movflags": "faststart"} if suffix == "mp4" else {}))
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    seconds = len(load_samples(path, RATE)) / RATE
    assert 7 < seconds < 13
    assert true_seconds(path) == pytest.approx(seconds, abs=0.3)
    if suffix != "mp3":  # nothing in an mp3 says how long it should be
        assert missing_seconds(path, seconds) == pytest.approx(20 - seconds, abs=0.5)
    target = str(tmp_path / "piece.flac")
    report = cut_all([Cut(str(path), 12.5, 16.5, target)])
    assert (
        f"the piece from 12.5 to 16.5 s lies outside the recording of {true_seconds(path):.2f} s"
        in (report.failures[target])
    )
    assert not Path(target).exists()


# ---- odd signals


def written(tmp_path, samples, **options):
    path = tmp_path / "odd.wav"
    soundfile.write(path, samples, RATE, **options)
    return path


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("rate", [RATE, 44_100])
def test_numbers_that_are_not_finite_are_refused_with_their_place(tmp_path, value, rate):
    samples = sound(rate=rate)
    samples[2 * rate] = value
    path = tmp_path / "odd.wav"
    soundfile.write(path, samples, rate, subtype="FLOAT")
    with pytest.raises(InputError, match=r"odd\.wav holds samples that are not finite numbers, the first at 2\.00 s"):
        load_samples(path, RATE)


@pytest.mark.parametrize("scale", [1 << 15, 1 << 23, 1 << 31])
def test_floating_point_in_the_scale_of_whole_numbers(tmp_path, scale):
    path = written(tmp_path, sound().astype(np.float64) * scale, subtype="DOUBLE")
    np.testing.assert_allclose(load_samples(path, RATE), sound(), atol=1e-5)
    # a piece is scaled as the whole is, also where nothing in it is loud
    np.testing.assert_allclose(load_samples(path, RATE, 1.0, 1.1), sound()[RATE : RATE + 1600], atol=1e-5)


def test_a_little_over_full_scale_stays(tmp_path):
    path = written(tmp_path, sound() * 5, subtype="FLOAT")
    np.testing.assert_allclose(load_samples(path, RATE), sound() * 5, atol=1e-6)


@pytest.mark.parametrize("offset", [0.0, 0.3])
def test_channels_that_cancel(tmp_path, offset):
    """One channel is wired the wrong way round: their mean is silence."""
    path = written(tmp_path, np.stack([sound() + offset, -0.9 * sound() + offset], 1))
    assert_same_sound(path, sound())
    assert_same_sound(written(tmp_path, np.stack([sound(), sound()], 1)), sound())
    assert_same_sound(written(tmp_path, np.stack([sound() * 2, sound() * 0], 1)), sound())


def test_a_constant_offset_is_removed(tmp_path):
    heard = load_samples(written(tmp_path, sound() * 0.3 + 0.6), RATE)
    assert abs(heard.mean()) < 1e-4
    np.testing.assert_allclose(heard, sound() * 0.3 - (sound() * 0.3).mean(), atol=1e-3)


@pytest.mark.parametrize("value", [0.0, 0.5])
def test_silence_is_refused(tmp_path, value):
    with pytest.raises(SilentAudioError, match=r"odd\.wav is silent: all of its 3\.00 s are one number"):
        load_samples(written(tmp_path, np.full(3 * RATE, value)), RATE)


def test_unsigned_and_wide_samples_of_ffmpeg(tmp_path):
    for codec in ("pcm_u8", "pcm_s24le", "pcm_s32le", "pcm_f32le"):
        assert_same_sound(encode(tmp_path / f"{codec}.mkv", codec, sound()), sound())


def test_long_recordings_are_read_in_blocks_and_held_in_a_file(tmp_path, monkeypatch):
    monkeypatch.setattr("sap2.audio_samples._IN_MEMORY", RATE)
    path = tmp_path / "long.flac"
    soundfile.write(path, np.stack([sound(40, 44_100)] * 2, 1), 44_100)
    assert max(block.samples.shape[1] for block in read_blocks(path)) <= 1 << 18
    heard = load_samples(path, RATE)
    assert isinstance(heard, np.memmap)
    assert len(heard) == 40 * RATE
    monkeypatch.undo()
    np.testing.assert_array_equal(heard, load_samples(path, RATE))


MEASURE = """
import sys
from sap2.audio import load_samples
samples = load_samples(sys.argv[1], 16_000)
# not rusage, which begins with what the parent took
peak = open("/proc/self/status").read().partition("VmHWM:")[2].split()[0]
print(len(samples), int(peak) // 1024)
"""


@pytest.mark.slow
def test_two_hours_of_stereo_stay_below_a_gigabyte(tmp_path):
    """Most of the file is a hole: it takes no room on the disk, and is decoded like any other."""
    path, seconds, rate = tmp_path / "talk.wav", 2 * 3600, 44_100
    soundfile.write(path, np.stack([sound(10, rate)] * 2, 1), rate)
    size = seconds * rate * 4
    place = path.read_bytes().find(b"data")
    header_changed(path, lambda data: data.__setitem__(slice(place + 4, place + 8), struct.pack("<I", size)))
    with path.open("rb+") as file:
        file.truncate(place + 8 + size)
    ran = subprocess.run([sys.executable, "-c", MEASURE, str(path)], capture_output=True, text=True, check=True)
    samples, megabytes = map(int, ran.stdout.split())
    assert samples == seconds * RATE
    assert megabytes < 1000
