"""Corpora whose audio is not in the files that were published: other formats, and Kaldi's archives."""

from __future__ import annotations

import os
from pathlib import Path

import kaldiio
import numpy as np
import pytest
import soundfile

from sap2.audio import audio_exists, load_piece, load_samples, open_recording, probe_seconds, true_seconds
from sap2.data.cutting import Cut, cut_all
from sap2.data.librispeech import read_corpus
from sap2.data.slidespeech import convert_slidespeech, find_recordings
from sap2.data.utterances import read_utterances
from sap2.errors import InputError

RATE = 16_000


def tone(seconds=2.0, hertz=440.0):
    return (0.3 * np.sin(2 * np.pi * hertz * np.arange(round(seconds * RATE)) / RATE)).astype(np.float32)


def write(path, samples=None):
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    options = {"format": "OGG", "subtype": "OPUS"} if path.suffix == ".opus" else {}
    soundfile.write(path, tone() if samples is None else samples, RATE, **options)
    return path


@pytest.fixture
def archive(tmp_path):
    """wav.scp and wav.ark, as Kaldi's wav-copy writes them."""
    with kaldiio.WriteHelper(f"ark,scp:{tmp_path}/wav.ark,{tmp_path}/wav.scp") as writer:
        for name, hertz in (("t1", 300.0), ("t2", 600.0)):
            writer(name, (RATE, (tone(6.0, hertz) * 32767).astype(np.int16)))
    return tmp_path


@pytest.mark.parametrize("suffix", [".flac", ".wav", ".mp3", ".opus", ".ogg"])
def test_librispeech_in_another_format(tmp_path, suffix):
    folder = tmp_path / "dev-clean" / "1" / "2"
    write(folder / f"1-2-0000{suffix}")
    (folder / "._1-2-0000.wav").write_bytes(b"\0\5\x16\7")
    (folder / "1-2.trans.txt").write_text("1-2-0000 HELLO WORLD\n")
    (recording,) = read_corpus(tmp_path, "dev-clean")
    assert recording.audio == str(folder / f"1-2-0000{suffix}")
    (folder / f"1-2-0000{suffix}").unlink()
    with pytest.raises(
        InputError, match=r"trans\.txt:1: no audio at .*1-2-0000\.flac, nor in another format beside it"
    ):
        list(read_corpus(tmp_path, "dev-clean"))


def test_slidespeech_in_other_formats(tmp_path):
    split = tmp_path / "dev"
    write(split / "wav" / "t1.opus")
    write(split / "wav" / "t2.mp3")
    write(split / "wav" / "t2.wav")
    (split / "wav" / "._t2.wav").write_bytes(b"\0\5\x16\7")
    (split / "wav" / "Thumbs.db").write_bytes(b"x")
    assert {name: Path(path).name for name, path in find_recordings(split).items()} == {"t1": "t1.opus", "t2": "t2.wav"}
    (split / "wav.scp").write_text("t1 wav/t1.flac\nt2 wav/t2.flac\n")
    assert {name: Path(path).name for name, path in find_recordings(split).items()} == {"t1": "t1.opus", "t2": "t2.wav"}


def test_an_archive_is_heard(archive):
    entries = dict(line.split() for line in (archive / "wav.scp").read_text().splitlines())
    for name, hertz in (("t1", 300.0), ("t2", 600.0)):
        assert audio_exists(entries[name])
        np.testing.assert_allclose(load_samples(entries[name], RATE), tone(6.0, hertz), atol=1e-4)
        np.testing.assert_allclose(load_piece(entries[name], RATE, 1, 2), tone(6.0, hertz)[RATE : 2 * RATE], atol=1e-4)
        assert probe_seconds(entries[name]) == true_seconds(entries[name]) == 6.0
    assert not audio_exists(archive / "other.ark:5")
    with pytest.raises(InputError, match=r"wav\.ark:7 cannot be read \(no sound there"):
        load_samples(f"{archive}/wav.ark:7", RATE)
    with pytest.raises(InputError, match=r"other\.ark does not exist"):
        load_samples(f"{archive}/other.ark:7", RATE)


def test_slidespeech_out_of_archives(archive):
    split = archive / "dev"
    split.mkdir()
    entries = dict(line.split() for line in (archive / "wav.scp").read_text().splitlines())
    places = {name: entry.rpartition("/")[2] for name, entry in entries.items()}
    (split / "wav.scp").write_text("".join(f"{name} {place}\n" for name, place in places.items()))
    (split / "segments").write_text("u1 t1 1.0 2.0\nu2 t2 0.5 3.0\n")
    (split / "text").write_text("u1 one\nu2 two\n")
    (split / "keywords").write_text("u1 x$y\nu2\n")
    report = convert_slidespeech(archive, "dev", archive / "dev.jsonl", archive / "audio")
    assert (report.utterances, report.cut) == (2, 2)
    cut = {utterance.id: utterance.audio for _, utterance in read_utterances(archive / "dev.jsonl")}
    np.testing.assert_allclose(load_samples(cut["u2"], RATE), tone(6.0, 600.0)[RATE // 2 : 3 * RATE], atol=1e-3)


def test_pieces_of_a_compressed_recording_decode_it_once(tmp_path, monkeypatch):
    import sap2.audio

    write(tmp_path / "talk.mp3", tone(20.0))
    calls = []
    monkeypatch.setattr(
        sap2.audio, "open_recording", lambda *args, **more: calls.append(args) or open_recording(*args, **more)
    )
    cuts = [Cut(str(tmp_path / "talk.mp3"), n, n + 1.0, str(tmp_path / f"{n}.flac")) for n in range(15)]
    assert cut_all(cuts).made == 15
    assert len(calls) == 1
    np.testing.assert_allclose(
        load_samples(tmp_path / "3.flac", RATE), load_samples(tmp_path / "talk.mp3", RATE, 3, 4), atol=1e-3
    )


def note_of(path):
    with soundfile.SoundFile(path) as file:
        return file.comment


def test_a_recording_that_was_replaced_is_cut_again(tmp_path):
    source, target = write(tmp_path / "talk.wav", tone(4.0)), tmp_path / "1.flac"
    cuts = [Cut(str(source), 1, 2.0, str(target))]
    assert (cut_all(cuts).made, cut_all(cuts).kept) == (1, 1)
    time = source.stat().st_mtime_ns
    soundfile.write(source, tone(4.0) * 0.5, RATE)
    os.utime(source, ns=(time + 10**6, time + 10**6))
    assert cut_all(cuts).made == 1, "of the same size, changed a moment later"
    assert np.abs(load_samples(target, RATE)).max() == pytest.approx(np.abs(tone(4.0)).max() / 2, rel=0.05)
    soundfile.write(source, tone(5.0), RATE)
    os.utime(source, ns=(time + 10**6, time + 10**6))
    assert cut_all(cuts).made == 1, "of another size, with the time of the one before"
    source.unlink()
    assert cut_all(cuts).kept == 1, "what was cut of a recording that is gone stays"


def test_a_cut_of_an_earlier_version_stays_unless_the_recording_is_newer(tmp_path):
    source, target = write(tmp_path / "talk.wav", tone(4.0)), tmp_path / "1.flac"
    cuts = [Cut(str(source), 1, 2.0, str(target))]
    with soundfile.SoundFile(target, "w", RATE, 1, format="FLAC") as file:
        file.comment = "talk.wav 1 2.0"
        file.write(tone(1.0))
    time = source.stat().st_mtime_ns
    os.utime(target, ns=(time, time))
    assert cut_all(cuts).kept == 1
    os.utime(target, ns=(time - 10**9, time - 10**9))
    assert cut_all(cuts).made == 1
    assert note_of(target) == f"talk.wav 1 2.0 {source.stat().st_size} {time}"


def test_a_cut_of_an_archive_knows_the_archive(archive, tmp_path):
    name, path = (archive / "wav.scp").read_text().split()[1], archive / "wav.ark"
    cuts = [Cut(name, 0, 1.0, str(tmp_path / "1.flac"))]
    assert (cut_all(cuts).made, cut_all(cuts).kept) == (1, 1)
    time = path.stat().st_mtime_ns + 10**9
    os.utime(path, ns=(time, time))
    assert cut_all(cuts).made == 1


@pytest.mark.parametrize("suffix", [".wav", ".flac", ".mp3"])
def test_a_piece_may_lack_what_the_rounding_of_times_explains_and_no_more(tmp_path, suffix):
    source, target = write(tmp_path / f"talk{suffix}", tone(4.0)), tmp_path / "1.flac"
    seconds = true_seconds(source)
    assert cut_all([Cut(str(source), 3.0, seconds + 0.045, str(target))]).made == 1
    assert len(load_samples(target, RATE)) == pytest.approx((seconds - 3.0) * RATE, abs=2)
    target.unlink()
    for end in (seconds + 0.06, seconds + 0.4):
        (problem,) = cut_all([Cut(str(source), 3.0, end, str(target))]).failures.values()
        assert f"the piece from 3 to {end:g} s lies outside the recording of {seconds:.2f} s" in problem
        with pytest.raises(InputError, match="lies outside the recording"):
            load_samples(source, RATE, 3.0, end)
    assert not target.exists()
