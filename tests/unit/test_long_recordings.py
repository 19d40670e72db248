"""Recordings of many hours: their samples lie in a temporary file, and what is asked for is read."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import soundfile
from pipeline_rows import KEYWORDS, TOKENS

from sap2 import Request, Transcriber
from sap2.audio import load_piece, load_samples, open_recording
from sap2.audio_samples import Recording
from sap2.data.row_checks import audio_facts

RATE = 16_000


@pytest.fixture
def talk(speeches, tmp_path):
    """Five utterances with pauses in a flac file."""
    pause = np.zeros(RATE * 3 // 2, np.float32)
    samples = np.concatenate([part for speech in (*speeches, *speeches[:2]) for part in (speech, pause)])
    soundfile.write(tmp_path / "talk.flac", samples, RATE)
    return tmp_path / "talk.flac"


@pytest.fixture
def all_long(monkeypatch):
    """Every recording is held in a file."""
    monkeypatch.setattr("sap2.audio_samples._IN_MEMORY", 0)


@pytest.mark.parametrize(("scale", "offset"), [(1, 0), (1, 0.4), (20_000, 0)])
def test_slices_of_a_file_are_those_of_the_array(talk, tmp_path, monkeypatch, scale, offset):
    path = tmp_path / "odd.wav"
    soundfile.write(path, (soundfile.read(talk)[0] + offset) * scale, RATE, subtype="FLOAT")
    whole = load_samples(path, RATE)
    monkeypatch.setattr("sap2.audio_samples._IN_MEMORY", 0)
    recording = open_recording(path, RATE)
    assert not isinstance(recording._stored, np.ndarray)
    spans = [slice(0, 0), slice(7, 5), slice(10, 40_000), slice(len(whole) - 3, len(whole) + 9), slice(None)]
    with ThreadPoolExecutor(4) as pool:
        for span, part in zip(spans * 5, pool.map(recording.__getitem__, spans * 5), strict=True):
            np.testing.assert_array_equal(part, whole[span])
    assert len(recording) == len(whole) and abs(whole.mean()) < 0.01 and abs(whole).max() <= 1
    np.testing.assert_array_equal(np.concatenate(list(recording.blocks())), whole)
    np.testing.assert_array_equal(recording.array(), whole)


def test_transcripts_of_a_recording_in_a_file_are_the_same(talk, tiny, prune, asr, all_long, monkeypatch):
    transcriber = Transcriber(tiny, prune, asr, max_new_tokens=TOKENS, batch_size=2)
    monkeypatch.setattr(Recording, "array", lambda self: pytest.fail("the whole recording was read"))
    held = transcriber.transcribe(talk, KEYWORDS)
    monkeypatch.undo()
    given = transcriber.transcribe(load_samples(talk, RATE).astype(np.float64), KEYWORDS)
    assert len(held.segments) == 5
    assert [(s.start, s.end, s.text) for s in held.segments] == [(s.start, s.end, s.text) for s in given.segments]


def test_the_data_commands_read_what_they_need(talk, all_long, monkeypatch, tmp_path):
    whole = load_samples(talk, RATE)
    monkeypatch.setattr(Recording, "array", lambda self: pytest.fail("the whole recording was read"))
    facts = audio_facts(str(talk))
    assert (facts.seconds, facts.peak) == (len(whole) / RATE, abs(whole).max())
    soundfile.write(tmp_path / "talk.mp3", whole, RATE)
    assert len(load_piece(tmp_path / "talk.mp3", RATE, 1.0, 2.0)) == RATE


def test_recordings_in_which_little_is_said_are_not_collected(tiny, speeches, monkeypatch):
    monkeypatch.setattr("sap2.pipeline.transcriber._AHEAD_SECONDS", 4)
    taken = []

    def asked():
        for number in range(6):
            taken.append(number)
            yield Request(np.pad(speeches[2], (0, 3 * RATE)))

    transcriber = Transcriber(tiny, max_new_tokens=1)
    next(transcriber.transcribe(asked()))
    assert len(taken) <= 2


def test_large_files_are_not_put_into_memory_that_is_called_tmp(monkeypatch, tmp_path):
    from sap2 import audio_samples

    for name in ("TMPDIR", "TEMP", "TMP"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(audio_samples, "_LARGE_FILES", str(tmp_path))
    assert audio_samples.temporary_folder() == str(tmp_path)
    monkeypatch.setattr(audio_samples, "_LARGE_FILES", str(tmp_path / "absent"))
    assert audio_samples.temporary_folder() == tempfile.gettempdir()
    monkeypatch.setenv("TMPDIR", "/named")
    monkeypatch.setattr(audio_samples, "_LARGE_FILES", str(tmp_path))
    assert audio_samples.temporary_folder() == tempfile.gettempdir()


def test_a_full_disk_is_an_error_with_the_folder(talk, all_long, monkeypatch, tmp_path):
    monkeypatch.setattr("sap2.audio_samples.temporary_folder", lambda: str(tmp_path))
    monkeypatch.setattr(tempfile, "TemporaryFile", lambda dir: Path("/dev/full").open("wb"))  # noqa: SIM115
    with pytest.raises(OSError) as error:
        load_samples(talk, RATE)
    assert (error.value.errno, error.value.filename) == (errno.ENOSPC, str(tmp_path))


HOLD = """
import sys, time
import sap2.audio_samples
sap2.audio_samples._IN_MEMORY = 0
recording = sap2.audio.open_recording(sys.argv[1], 16_000)
print(len(recording), flush=True)
time.sleep(60)
"""


@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGKILL])
def test_nothing_is_left_of_a_process_that_is_ended(talk, tmp_path, end):
    folder = tmp_path / "temporary"
    folder.mkdir()
    command = [sys.executable, "-c", "import sap2.audio\n" + HOLD, str(talk)]
    with subprocess.Popen(
        command, env=os.environ | {"TMPDIR": str(folder)}, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as process:
        process.stdout.readline()
        places = [str(link.readlink()) for link in Path(f"/proc/{process.pid}/fd").iterdir()]
        assert any(place.startswith(str(folder)) for place in places), "the recording lies there"
        process.send_signal(end)
    assert list(folder.iterdir()) == []


COMMAND = """
import sys
from sap2.cli import main
main(sys.argv[1:])
print(open("/proc/self/status").read().partition("VmHWM:")[2].split()[0])
"""


def peak_megabytes(path, tiny, *arguments):
    """Of a whole ``sap2 transcribe``; not rusage, which begins with what its parent took."""
    command = [sys.executable, "-c", COMMAND, "transcribe", path, "--model", tiny, "--max_new_tokens", "2", *arguments]
    ran = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=True)
    return int(ran.stdout.split()[-1]) / 1024


def write_talk(path, hours, rate, channels, speech):
    """Speech once an hour, and faint noise."""
    noise = np.random.default_rng(0).integers(-3, 4, (60 * rate, channels)).astype(np.int16)
    minute = noise.copy()
    words = np.round(speech[: 60 * rate] * 32_000).astype(np.int16)
    minute[: len(words)] += words[:, None]
    with soundfile.SoundFile(path, "w", rate, channels, "PCM_16") as file:
        for number in range(hours * 60):
            file.write(noise if number % 60 else minute)


@pytest.mark.slow
@pytest.mark.parametrize("vad", ["energy", "silero"])
@pytest.mark.parametrize(("name", "hours", "rate", "channels"), [("day.flac", 10, RATE, 1), ("talk.wav", 2, 44_100, 2)])
def test_transcribing_hours_stays_below_a_gigabyte(tmp_path, tiny, speeches, name, hours, rate, channels, vad):
    write_talk(tmp_path / name, hours, rate, channels, speeches[0])
    assert peak_megabytes(tmp_path / name, tiny, "--vad", vad) < 1000
