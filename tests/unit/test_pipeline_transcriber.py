"""Recordings of any length on a tiny model: segments, requests in a stream, keywords by time, refusals."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from pipeline_rows import KEYWORDS, TOKENS

from sap2 import Request, TimedKeywords, Transcriber


@pytest.fixture(scope="module")
def transcriber(tiny, prune, asr):
    return Transcriber(tiny, prune_adapter=prune, asr_adapter=asr, max_new_tokens=TOKENS, batch_size=2)


@pytest.fixture(scope="module")
def talk(speeches):
    """The utterances one after another with pauses, longer than the window of 8 s."""
    pause = np.zeros(16_000 * 3 // 2, np.float32)
    return np.concatenate([part for speech in [*speeches, speeches[0]] for part in (speech, pause)])


def test_a_long_recording_has_a_segment_for_each_stretch_of_speech(transcriber, talk, speeches):
    transcript = transcriber.transcribe(talk, keywords=KEYWORDS)
    assert len(transcript.segments) == 4
    position = 0.0
    for segment, speech in zip(transcript.segments, [*speeches, speeches[0]], strict=True):
        assert segment.start == pytest.approx(position, abs=0.3)
        assert segment.end == pytest.approx(position + len(speech) / 16_000, abs=0.3)
        assert segment.picked_keywords == ["bob"] and segment.unlisted_keywords == ["who"]
        position += len(speech) / 16_000 + 1.5
    assert transcript.text == " ".join(segment.text for segment in transcript.segments)
    assert transcript.audio_tower_runs == 1


def test_many_requests_give_transcripts_in_their_order(transcriber, talk, wavs):
    requests = [Request(talk, KEYWORDS, id="talk"), Request(wavs[2], ["bob"]), wavs[0], Request(wavs[1], KEYWORDS)]
    taken = []

    def asked():
        for request in requests * 2:
            taken.append(request)
            yield request

    stream = transcriber.transcribe(asked())
    assert not taken
    first = next(stream)
    assert len(taken) < 8  # requests are read as they are needed
    transcripts = [first, *stream]
    assert [t.id for t in transcripts] == ["talk", wavs[2], wavs[0], wavs[1]] * 2
    alone = [transcriber.transcribe(request) for request in requests if isinstance(request, Request)]
    assert [t.text for t in transcripts[:2]] == [t.text for t in alone[:2]]
    assert transcripts[2].picked_keywords == []


def test_a_segment_is_offered_the_keywords_of_its_own_time(transcriber, talk):
    slides = [TimedKeywords(0, 2.0, ["bob"]), TimedKeywords(3.5, None, ["amy"])]
    segments = transcriber.transcribe(talk, keywords=["eve"], slides=slides).segments
    assert segments[0].picked_keywords == ["bob"] and segments[0].keywords == 2
    assert [segment.picked_keywords for segment in segments[2:]] == [[], []]


def test_several_threads_get_the_same_text_as_one(transcriber, speeches):
    """The adapter in use is a state of the one model."""
    asked = [(speech, keywords) for speech in speeches for keywords in (KEYWORDS, ["bob"])] * 2
    alone = [transcriber.transcribe(*request) for request in asked[: len(asked) // 2]] * 2
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda request: transcriber.transcribe(*request), asked))
    assert [t.text for t in together] == [t.text for t in alone]
    assert [t.picked_keywords for t in together] == [t.picked_keywords for t in alone]


def test_silence_is_an_empty_transcript(transcriber):
    transcript = transcriber.transcribe(np.zeros(32_000, np.float32))
    assert (transcript.text, transcript.segments, transcript.audio_seconds) == ("", [], 2.0)


@pytest.mark.parametrize(
    ("audio", "keywords", "message"),
    [
        (np.zeros((2, 100), np.float32), [], r"shape \(2, 100\)"),
        (np.zeros(100, np.int16), [], "type int16; allowed: .*floating point"),
        (np.full(100, np.nan, np.float32), [], "not finite"),
        (np.zeros(0, np.float32), [], "is empty"),
        (np.zeros(100, np.float32), "bob", "keywords are 'bob'; allowed: a list"),
        ("gone.wav", [], "gone.wav does not exist"),
        (["gone.wav"], ["bob"], "go into the requests"),
    ],
)
def test_requests_that_cannot_be_are_refused(transcriber, audio, keywords, message):
    with pytest.raises(ValueError, match=message):
        transcriber.transcribe(audio, keywords=keywords)


def test_segments_can_be_shorter_than_the_window_and_not_longer(tiny):
    with pytest.raises(ValueError, match="max_segment_seconds is 9; the model hears at most 8 s"):
        Transcriber(tiny, max_segment_seconds=9)
    with pytest.raises(ValueError, match="stages prune gives no transcript"):
        Transcriber(tiny, prune_adapter="x", stages="prune")
    assert Transcriber(tiny, max_segment_seconds=4).sampling_rate == 16_000
