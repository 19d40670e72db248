"""Speech is real, is the same for the same arguments whatever was said before, and never in the wrong voice."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import threading

import numpy as np
import pytest

from sap2.errors import InputError
from sap2.tiny.speech import SAMPLE_RATE, phonemes, speak, speak_words


def test_samples():
    samples = speak("hello world")
    assert samples.dtype == np.float32
    assert samples.ndim == 1
    assert 0.5 < len(samples) / SAMPLE_RATE < 1.5, "two words take about a second"
    assert 0.02 < np.sqrt(np.mean(samples**2)) < 0.3
    assert np.abs(samples).max() < 1.1
    spectrum = np.abs(np.fft.rfft(samples)) ** 2
    hertz = np.fft.rfftfreq(len(samples), 1 / SAMPLE_RATE)
    assert spectrum[(hertz > 80) & (hertz < 4000)].sum() / spectrum.sum() > 0.9, "voices lie between 80 and 4000 Hz"


def test_the_past_does_not_matter():
    before = speak("hello world", "en-us+f2", 190, 60)
    speak("something else", "en-gb-x-rp+m3", 300, 10)
    phonemes("another thing", "en-us")
    assert np.array_equal(speak("hello world", "en-us+f2", 190, 60), before)


def test_another_process_says_the_same():
    code = (
        "import hashlib; from sap2.tiny.speech import speak; speak('first');"
        "print(hashlib.sha256(speak('hello world').tobytes()).hexdigest())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == hashlib.sha256(speak("hello world").tobytes()).hexdigest()


def test_threads_do_not_disturb_each_other():
    alone = {voice: speak("hello world", voice) for voice in ("en-us+f1", "en-us+m1", "en-gb-x-rp+m7")}
    wrong = []

    def work(voice):
        for _ in range(5):
            if not np.array_equal(speak("hello world", voice), alone[voice]):
                wrong.append(voice)

    threads = [threading.Thread(target=work, args=(voice,)) for voice in alone]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_settings_are_heard():
    normal = speak("hello world")
    assert len(speak("hello world", rate=300)) < 0.8 * len(normal)
    for other in (speak("hello world", pitch=90), speak("hello world", "en-us+m3"), speak("hello world", "en-gb-x-rp")):
        assert not np.array_equal(other, normal)


@pytest.mark.parametrize(
    "voice", ["xx-yy", "", "en-us+zz", "en-us+", "en-us+f1+f2", "en-gb", "../en", "en-us+../f1", "en\0us", "én"]
)
def test_unknown_voice(voice):
    reference = speak("hello", "en-us+f1")
    with pytest.raises(ValueError, match="is unknown to espeak-ng; examples: en-us, en-us\\+f2"):
        speak("hello", voice)
    with pytest.raises(ValueError, match="is unknown to espeak-ng"):
        phonemes("hello", voice)
    assert np.array_equal(speak("hello", "en-us+f1"), reference)


@pytest.mark.parametrize(
    ("setting", "message"),
    [({"rate": 79}, "rate is 79; allowed: 80 to 450"), ({"pitch": 101}, "pitch is 101; allowed: 0 to 100")],
)
def test_out_of_range(setting, message):
    with pytest.raises(ValueError, match=message):
        speak("hello", **setting)


@pytest.mark.parametrize("text", ["", "   ", "...", "\0"])
def test_silence_is_an_error(text):
    with pytest.raises(ValueError, match="makes no sound"):
        speak(text)


def test_phonemes():
    assert phonemes("catherine") == phonemes("kathryn") != phonemes("caroline")
    assert phonemes("first, second").count(" ") == 1
    assert phonemes("") == ""


def test_homophones_give_the_same_samples():
    assert np.array_equal(speak("felon kayler"), speak("phelon cayler"))
    assert not np.array_equal(speak("felon kayler"), speak("felin kayler"))


INTERRUPTED = """
import signal

from sap2.tiny import speech

class Interrupted(speech._Engine):
    def _receive(self, samples, count, events):
        signal.raise_signal(signal.SIGINT)
        return super()._receive(samples, count, events)

engine = Interrupted()
engine.set_voice("en-us")
try:
    engine.synthesize("hello")
except KeyboardInterrupt:
    print("interrupted")
"""


def test_an_interrupt_while_the_library_speaks_is_not_lost():
    done = subprocess.run([sys.executable, "-c", INTERRUPTED], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("interrupted\n", "")


def test_words_have_the_times_at_which_they_are_said():
    text = "in the old room, we read of the page today"
    samples, words = speak_words(text, "en-gb-x-rp+f2")
    assert np.array_equal(samples, speak(text, "en-gb-x-rp+f2"))
    assert [word.text for word in words] == text.split()
    edges = [edge for word in words for edge in (word.start, word.end)]
    assert edges == sorted(edges) and edges[0] == 0 and edges[-1] <= len(samples) / SAMPLE_RATE
    assert all(word.end - word.start > 0.05 for word in words)  # also those that the library joins ("in the")
    comma = samples[round(words[3].end * SAMPLE_RATE) + 320 : round(words[4].start * SAMPLE_RATE) - 320]
    assert len(comma) > 1000 and np.abs(comma).max() < 0.01 * np.abs(samples).max()
    begins = round(words[4].start * SAMPLE_RATE)
    assert np.abs(samples[begins : begins + 960]).max() > 0.1 * np.abs(samples).max()


@pytest.mark.parametrize("text", ["—", "gpt-4 costs $20 — a lot", "hi 我们 emily", "u.s.a. and the eu", "123,456"])
def test_whatever_is_said_every_word_has_a_time(text):
    try:
        words = speak_words(text).words
    except InputError:
        assert text == "—"
        return
    assert [word.text for word in words] == text.split()
    assert all(word.start <= word.end for word in words)
