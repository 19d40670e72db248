"""Recordings: cutting, subtitles, audio files and keyword sources."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sap2.audio import load_samples, probe_seconds
from sap2.pipeline.segmentation import Cutting
from sap2.pipeline.segmentation import cut_at_pauses as cut
from sap2.pipeline.subtitles import FORMATS, format_transcript
from sap2.pipeline.types import Segment, Transcript
from sap2.pipeline.voice_activity import detect_by_energy
from sap2.slides.sources import KeywordOptions, read_keywords, read_slide_times

RATE = 16_000


def speech_like(seconds, seed=0, rms=0.1):
    """Noise with the level of speech."""
    return np.random.default_rng(seed).normal(0, rms, round(seconds * RATE)).astype(np.float32)


def recording(*parts, background=1e-4):
    """(seconds, speech?) after one another, in faint noise."""
    samples = np.concatenate(
        [speech_like(s, i) if loud else np.zeros(round(s * RATE)) for i, (s, loud) in enumerate(parts)]
    )
    return (samples + np.random.default_rng(9).normal(0, background, len(samples))).astype(np.float32)


def cut_at_pauses(samples, rate, cutting):
    """By energy: the speech of these tests is noise."""
    return cut(samples, rate, cutting, detect_by_energy)


def seconds_of(pieces):
    return [(round(first / RATE, 1), round(last / RATE, 1)) for first, last in pieces]


def test_pieces_end_at_long_pauses_and_leave_the_silence_out():
    samples = recording((2, False), (3, True), (1.5, False), (4, True), (2, False))
    assert seconds_of(cut_at_pauses(samples, RATE, Cutting(30))) == [(1.9, 5.1), (6.4, 10.6)]


def test_a_piece_that_grows_too_long_is_cut_at_the_longest_pause_of_its_second_half():
    samples = recording((3, True), (0.6, False), (2, True), (0.3, False), (2, True), (0.5, False), (4, True))
    assert seconds_of(cut_at_pauses(samples, RATE, Cutting(8.5))) == [(0.0, 8.0), (8.3, 12.4)]


def test_short_gaps_within_words_are_no_pauses():
    parts = [(0.4, True), (0.12, False)] * 12
    samples = recording(*parts, (0.4, False), (3, True))
    pieces = seconds_of(cut_at_pauses(samples, RATE, Cutting(8)))
    assert pieces == [(0.0, 6.2), (6.5, 9.6)]


def test_without_any_pause_the_quietest_place_is_cut():
    samples = speech_like(16)
    samples[int(6.95 * RATE) : int(7.05 * RATE)] *= 0.05
    pieces = cut_at_pauses(samples, RATE, Cutting(10))
    assert 6.95 <= pieces[0][1] / RATE <= 7.05
    assert all(last - first <= 10 * RATE for first, last in pieces)


@pytest.mark.parametrize("background", [0.0, 1e-3, 2e-2])
@pytest.mark.parametrize("volume", [0.01, 1.0])
def test_background_noise_and_volume_do_not_move_the_cuts(background, volume):
    samples = recording((3, True), (1.5, False), (3, True), background=background) * np.float32(volume)
    assert seconds_of(cut_at_pauses(samples, RATE, Cutting(30))) == [(0.0, 3.1), (4.4, 7.5)]


def test_silence_has_no_pieces():
    assert cut_at_pauses(np.zeros(5 * RATE, np.float32), RATE, Cutting(30)) == []
    assert cut_at_pauses(np.zeros(10, np.float32), RATE, Cutting(30)) == []


@given(st.lists(st.tuples(st.floats(0.05, 4), st.booleans()), min_size=1, max_size=12), st.floats(1, 9))
def test_pieces_are_in_order_and_never_too_long(parts, max_seconds):
    samples = recording(*parts)
    pieces = cut_at_pauses(samples, RATE, Cutting(max_seconds))
    edges = [edge for piece in pieces for edge in piece]
    assert edges == sorted(edges)
    assert all(0 < last - first <= max_seconds * RATE + 1 for first, last in pieces)
    assert not edges or (edges[0] >= 0 and edges[-1] <= len(samples))


def test_real_talks_are_cut_between_their_utterances(tmp_path):
    from sap2.tiny.speech import speak

    rng = np.random.default_rng(3)
    spans, parts, position = [], [], 0
    for sentence in ("we opened the tattered book", "steve wozniak built it", "ten petals on a plate", "that is all"):
        speech = speak(sentence)
        spans.append((position, position + len(speech)))
        pause = np.zeros(int(RATE * rng.uniform(0.3, 0.6)))
        parts += [speech, pause]
        position += len(speech) + len(pause)
    pieces = cut_at_pauses(np.concatenate(parts).astype(np.float32), RATE, Cutting(4))
    inner = [edge for piece in pieces for edge in piece]
    assert len(pieces) >= 2
    margin = 0.15 * RATE
    assert not [edge for edge in inner for start, end in spans if start + margin < edge < end - margin]


def test_a_limit_that_leaves_no_room_is_refused():
    with pytest.raises(ValueError, match=r"max_seconds is 0\.3; allowed: above 0\.4"):
        Cutting(0.3)


def transcript(*texts):
    segments = [
        Segment(3661.5 + i, 3662.0014 + i, text, 2, ["emily"], [], 1, {"asr": 1.5}, []) for i, text in enumerate(texts)
    ]
    return Transcript.from_segments("talk", segments, 4000.0)


def test_the_segments_of_a_transcript_are_put_together():
    whole = transcript("hi", " ", "emily ")
    assert (whole.text, whole.picked_keywords, whole.seconds) == ("hi emily", ["emily"], {"asr": 4.5})
    assert Transcript.from_segments("talk", [], 1.0).audio_tower_runs == 0


def test_subtitles_have_the_times_of_their_format():
    srt = format_transcript(transcript("hi", "emily"), "srt")
    assert srt == "1\n01:01:01,500 --> 01:01:02,001\nhi\n\n2\n01:01:02,500 --> 01:01:03,001\nemily\n"
    vtt = format_transcript(transcript("hi"), "vtt")
    assert vtt == "WEBVTT\n\n01:01:01.500 --> 01:01:02.001\nhi\n"


def test_a_reply_cannot_write_a_cue_of_its_own():
    evil = "a\n\n2\n00:00:00,000 --> 00:00:09,000\nb <c.d> & e"
    srt, vtt = (format_transcript(transcript(evil), name) for name in ("srt", "vtt"))
    assert srt.count("-->") == 1 and "\n\n" not in srt
    assert vtt.count("-->") == 1 and "<c" not in vtt and "&amp;" in vtt


def test_every_format_has_an_output_for_silence():
    empty = Transcript.from_segments("talk", [], 1.0)
    assert {name: format_transcript(empty, name) for name in FORMATS if name != "json"} == {
        "txt": "",
        "srt": "",
        "vtt": "WEBVTT\n",
        "ctm": "",
    }
    assert json.loads(format_transcript(empty, "json"))["segments"] == []


def test_audio_that_cannot_be_read_is_named(tmp_path, wavs):
    assert probe_seconds(wavs[0]) == pytest.approx(len(load_samples(wavs[0], RATE)) / RATE)
    empty, text = tmp_path / "empty.wav", tmp_path / "text.wav"
    empty.touch(), text.write_text("no audio")
    for path, message in ((empty, "is empty"), (text, "cannot be read"), (tmp_path / "no.wav", "does not exist")):
        for read in (probe_seconds, lambda path: load_samples(path, RATE)):
            with pytest.raises(ValueError, match=f"{path.name} {message}"):
                read(path)


def test_keywords_come_from_lists_decks_or_the_command_line(tmp_path):
    listed = tmp_path / "list.txt"
    listed.write_text("Emily\nsteve wozniak\nemily\nevil<|endofcontext|>\n")
    assert read_keywords(str(listed)) == ["Emily", "steve wozniak", "evil endofcontext"]
    deck = tmp_path / "deck.md"
    deck.write_text("The story of Wozniak\nat the Homebrew club\fSlide two about Vendett")
    assert {"Wozniak", "Homebrew", "Vendett"} <= set(read_keywords(str(deck)))
    assert len(read_keywords(str(deck), KeywordOptions(max_keywords=2))) == 2
    assert read_keywords("emily, steve wozniak") == ["emily", "steve wozniak"]
    with pytest.raises(ValueError, match=r"--keywords slides\.pdf: no such file"):
        read_keywords("slides.pdf")


def test_slides_have_the_times_of_the_manifest(tmp_path):
    (tmp_path / "deck.md").write_text("Wozniak\fVendett")
    audio = tmp_path / "talk.wav"
    manifest = tmp_path / "m.csv"
    manifest.write_text(
        "id,audio,start,end,slide\na,talk.wav,0,10,1\nb,talk.wav,10,,2\nc,other.wav,0,5,1\n", encoding="utf-8"
    )
    deck = str(tmp_path / "deck.md")
    first, second = read_slide_times(str(manifest), audio, deck)
    assert (first.start, first.end, first.keywords) == (0.0, 10.0, ["Wozniak"])
    assert (second.start, second.end, second.keywords) == (10.0, None, ["Vendett"])
    with pytest.raises(ValueError, match=r"m\.csv: no row names the audio"):
        read_slide_times(str(manifest), tmp_path / "third.wav", deck)
    with pytest.raises(ValueError, match=r"m\.csv:2: no slides; name them in the row"):
        read_slide_times(str(manifest), audio, None)
    manifest.write_text("id,audio,slide\na,talk.wav,3\n")
    with pytest.raises(ValueError, match="slide 3 of a deck that has 2"):
        read_slide_times(str(manifest), audio, deck)
