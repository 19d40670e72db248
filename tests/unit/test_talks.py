"""The talks: real audio where the lists say it is, names told apart only by the slide, splits that share no name."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile

from sap2.augment.options import SOUNDS
from sap2.tiny import talks as talks_module
from sap2.tiny.plan import ACCENTS, SPLITS, TalksOptions, plan_talks
from sap2.tiny.speech import phonemes
from sap2.tiny.talks import make_talks

SMALL = TalksOptions(talks=6, dev_talks=1, test_talks=2, slides=2, utterances=3, keywords=6, noise=0.5, seed=5)
LISTS = ("segments", "text", "keywords", "wav.scp", "utt2spk")


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return make_talks(tmp_path_factory.mktemp("talks") / "talks", SMALL)


@pytest.fixture(scope="module")
def facts(folder):
    return json.loads((folder / "talks.json").read_text())


def table(path: Path) -> dict[str, list[str]]:
    """The lines of a Kaldi file by their first column."""
    lines = [line.split(" ") for line in path.read_text().splitlines()]
    assert lines == sorted(lines)
    rows = {line[0]: line[1:] for line in lines}
    assert len(rows) == len(lines), "no id twice"
    return rows


def read_all(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_same_options_same_bytes(folder, tmp_path):
    assert read_all(make_talks(tmp_path / "elsewhere", SMALL)) == read_all(folder)


def homophones_of(plan):
    return [sorted([*talk.homophones, *talk.homophones.values()]) for talk in plan]


def test_seeds():
    one_slide = replace(SMALL, slides=1)  # it shows all names of its talk
    plan = plan_talks(one_slide)
    assert homophones_of(plan) != homophones_of(plan_talks(replace(one_slide, seed=6)))
    same_names = plan_talks(replace(one_slide, seed=6, vocabulary_seed=5))
    assert homophones_of(same_names) == homophones_of(plan)
    assert all(homophones_of(plan))
    assert [talk.slides[0].sentences for talk in same_names] != [talk.slides[0].sentences for talk in plan]


def test_layout(folder, facts):
    assert {path.name for path in folder.iterdir()} == {"train", "dev", "test", "wav", "talks.json"}
    for split, count in zip(SPLITS, (3, 1, 2), strict=True):
        assert {path.name for path in (folder / split).iterdir()} == {*LISTS, "words.ctm"}
        rows = {name: table(folder / split / name) for name in LISTS}
        ids = rows["segments"].keys()
        assert len(ids) == count * SMALL.slides * SMALL.utterances
        assert rows["text"].keys() == rows["keywords"].keys() == rows["utt2spk"].keys() == ids
        assert {row[0] for row in rows["segments"].values()} == rows["wav.scp"].keys()
        assert len(rows["wav.scp"]) == count
        assert [row[0] for row in rows["utt2spk"].values()] == [utterance.split("_")[0] for utterance in ids]
    assert facts["options"]["seed"] == 5
    assert facts["version"] == 1
    assert str(folder.parent) not in "".join(map(str, read_all(folder).values())), "no machine path in any file"


def test_recordings_are_speech_where_the_segments_say(folder):
    for split in SPLITS:
        for recording, (path,) in table(folder / split / "wav.scp").items():
            info = soundfile.info(folder / split / path)
            assert (info.samplerate, info.channels, info.subtype) == (16000, 1, "PCM_16")
            samples, _ = soundfile.read(folder / split / path)
            quiet = np.ones(len(samples), bool)
            for utterance, (of, start, end) in table(folder / split / "segments").items():
                if of != recording:
                    continue
                begin, stop = round(float(start) * 16000), round(float(end) * 16000)
                assert 0 <= begin < stop <= len(samples)
                assert stop - begin < 4 * 16000
                assert np.sqrt(np.mean(samples[begin:stop] ** 2)) > 0.03, utterance
                assert quiet[begin:stop].all(), "utterances do not overlap"
                quiet[begin:stop] = False
            assert np.sqrt(np.mean(samples[quiet] ** 2)) < 0.02, "pauses are quiet"
            assert np.abs(samples).max() < 1


def test_a_segment_holds_its_words(folder, facts):
    """The segment is as long as the words spoken alone, with its margins."""
    talk = facts["talks"][0]
    segment = talk["segments"][0]
    lengths = [
        len(talks_module.speak(segment["text"], talk["voice"], talk["rate"] + d, talk["pitch"])) for d in (-8, 8)
    ]
    seconds = segment["end"] - segment["start"] - 2 * talks_module.MARGIN_SECONDS
    assert min(lengths) / 16000 - 0.02 <= seconds <= max(lengths) / 16000 + 0.02


def test_every_word_has_its_time(folder, facts):
    for split in SPLITS:
        lines = [line.split(" ") for line in (folder / split / "words.ctm").read_text().splitlines()]
        words = {talk: [] for talk in table(folder / split / "wav.scp")}
        for talk, channel, start, length, word in lines:
            assert channel == "1" and float(length) > 0
            words[talk].append((float(start), float(start) + float(length), word))
        for segment in (segment for talk in facts["talks"] if talk["split"] == split for segment in talk["segments"]):
            inside = [w for w in words[segment["id"].split("_")[0]] if segment["start"] <= w[0] < segment["end"]]
            assert [word for *_, word in inside] == segment["text"].split()
            assert inside[0][0] == pytest.approx(segment["start"] + talks_module.MARGIN_SECONDS, abs=0.02)
            assert inside[-1][1] <= segment["end"] - talks_module.MARGIN_SECONDS + 0.002
            assert all(before[1] <= after[0] + 0.002 for before, after in itertools.pairwise(inside))
    assert "words" not in facts["talks"][0] and "words" not in facts["talks"][0]["segments"][0]


def test_keywords_are_those_of_the_slide(folder, facts):
    for talk in facts["talks"]:
        keywords = table(folder / talk["split"] / "keywords")
        texts = table(folder / talk["split"] / "text")
        assert talk["slides"][0]["start"] == 0
        for segment in talk["segments"]:
            slide = talk["slides"][segment["slide"]]
            assert keywords[segment["id"]] == ["$".join(slide["keywords"])]
            assert texts[segment["id"]] == segment["text"].split()
            assert slide["start"] <= segment["start"] < segment["end"] <= slide["end"]


def test_most_keywords_are_not_spoken():
    slides = [slide for talk in plan_talks(TalksOptions(talks=8)) for slide in talk.slides]
    spoken = [sum(word in slide.keywords for word in text.split()) for slide in slides for text in slide.sentences]
    assert set(spoken) == {0, 1, 2}
    assert 0.6 < np.mean(spoken) < 1.4
    assert all(len(slide.keywords) == len(set(slide.keywords)) for slide in slides)
    assert np.mean([len(slide.keywords) for slide in slides]) > 7.5


def spoken_keywords(talk):
    return {
        word for slide in talk.slides for text in slide.sentences for word in text.split() if word in slide.keywords
    }


def test_splits_share_no_keyword_and_no_sound():
    plan = plan_talks(TalksOptions(talks=8, homophones=0.5))
    shown = {
        s: {w for talk in plan if talk.split == s for slide in talk.slides for w in slide.keywords} for s in SPLITS
    }
    heard = {s: {phonemes(word) for word in words} for s, words in shown.items()}
    for one, other in (("train", "dev"), ("train", "test"), ("dev", "test")):
        assert not shown[one] & shown[other]
        assert not heard[one] & heard[other]


def test_shared_names_come_from_training():
    plan = plan_talks(TalksOptions(talks=6, shared_names=True))
    train = {word for talk in plan if talk.split == "train" for slide in talk.slides for word in slide.keywords}
    for talk in plan:
        if talk.split != "train":
            assert spoken_keywords(talk) <= train


def test_homophones_are_told_apart_by_the_slide_alone():
    plan = [talk for talk in plan_talks(TalksOptions(talks=10, homophones=0.5)) if talk.split == "train"]
    both_spellings = 0
    for talk in plan:
        shown = {word for slide in talk.slides for word in slide.keywords}
        assert talk.homophones
        for name, twin in talk.homophones.items():
            assert name in shown
            assert twin not in shown
            assert all(phonemes(name, accent) == phonemes(twin, accent) for accent in ACCENTS)
            both_spellings += any(twin in other.homophones for other in plan)
    assert both_spellings > sum(len(talk.homophones) for talk in plan) / 2, "the other spelling is in another talk"
    share = sum(word in talk.homophones for talk in plan for word in spoken_keywords(talk)) / sum(
        len(spoken_keywords(talk)) for talk in plan
    )
    assert 0.35 < share < 0.65


def test_talks_have_their_own_voices(facts):
    assert len({talk["voice"] for talk in facts["talks"]}) > 1
    assert {talk["voice"] for talk in facts["talks"]} <= set(SMALL.voices)


def test_noise(facts, tmp_path):
    assert any(talk["snr_db"] for talk in facts["talks"])
    assert not all(talk["snr_db"] for talk in facts["talks"])
    tiny = replace(SMALL, talks=1, dev_talks=0, test_talks=0, slides=1, utterances=1)
    for noise in (0.0, 1.0):
        folder = make_talks(tmp_path / str(noise), replace(tiny, noise=noise))
        samples, _ = soundfile.read(folder / "wav" / "talk0001.wav")
        level = np.sqrt(np.mean(samples[:3200] ** 2))  # the first 0.2 s are before the first word
        assert (level > 1e-4) == bool(noise)


@pytest.mark.parametrize("kind", SOUNDS)
def test_a_fixed_ratio(tmp_path, kind):
    """The recording is that of the clean talk and a sound, which is as far below it as was asked for."""
    tiny = replace(SMALL, talks=1, dev_talks=0, test_talks=0, slides=1, utterances=2, noise=0.0)
    clean = make_talks(tmp_path / "clean", tiny)
    noisy = make_talks(tmp_path / "noisy", replace(tiny, snr=10.0, noise_kind=kind))
    speech, heard = (soundfile.read(folder / "wav" / "talk0001.wav")[0] for folder in (clean, noisy))
    spoken = np.zeros(len(speech), bool)
    for _, start, end in table(noisy / "train" / "segments").values():
        spoken[round(float(start) * 16000) : round(float(end) * 16000)] = True
    ratio = 10 * np.log10(np.mean(speech[spoken] ** 2) / np.mean((heard - speech) ** 2))
    assert ratio == pytest.approx(10, abs=0.1)
    facts = json.loads((noisy / "talks.json").read_text())
    assert (facts["talks"][0]["snr_db"], facts["options"]["snr"], facts["options"]["noise_kind"]) == (10.0, 10.0, kind)
    assert "snr" not in json.loads((clean / "talks.json").read_text())["options"]


@pytest.mark.parametrize(
    "options",
    [
        {"slides": 1, "keywords": 1, "utterances": 1},
        {"slides": 3, "near": 1.0},
        {"near": 0.0, "homophones": 1.0, "plain": 0.0},
        {"homophones": 0.0, "plain": 1.0},
        {"slides": 20, "keywords": 2, "shared_names": True},
        {"voices": ("en-gb-scotland",), "talks": 2, "dev_talks": 0, "test_talks": 1},
    ],
)
def test_extremes_can_be_planned(options):
    plan = plan_talks(TalksOptions(**{"talks": 4, "slides": 2, **options}))
    for talk in plan:
        for slide in talk.slides:
            assert 1 <= len(slide.keywords) <= TalksOptions(**{"talks": 4, **options}).keywords
            assert slide.sentences


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"talks": 2}, "talks is 2, with 1 for dev and 1 for test none is left for training; allowed: more than 2"),
        ({"slides": 0}, "slides is 0; allowed: 1 or more"),
        ({"test_talks": -1}, "test_talks is -1; allowed: 0 or more"),
        ({"homophones": 1.5}, "homophones is 1.5; allowed: 0 to 1"),
        ({"noise": float("nan")}, "noise is nan; allowed: 0 to 1"),
        ({"seed": -1}, "seed is -1; allowed: 0 or more"),
        ({"snr": 10.0, "noise": 0.5}, "snr 10 is for all talks, and noise 0.5 for some; allowed: one of them"),
        ({"snr": 99.0}, "snr is 99; allowed: -20 to 60 dB"),
        ({"noise_kind": "rain"}, "noise_kind is 'rain'; allowed: noise, babble, hum"),
        ({"voices": ()}, "voices is empty"),
        ({"max_seconds": 1.0}, r"max_seconds is 1.0; allowed: 2 to 30"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        TalksOptions(**options)


def test_unknown_voice_is_refused_before_the_work(tmp_path, capfd):
    with pytest.raises(ValueError, match=r"voice 'en-us\+zz' is unknown to espeak-ng"):
        make_talks(tmp_path / "talks", replace(SMALL, voices=("en-us", "en-us+zz")))
    assert list(tmp_path.iterdir()) == []
    assert "make-talks" not in capfd.readouterr().err


def test_long_sentences_are_spoken_faster(monkeypatch):
    rng = np.random.default_rng(0)
    talk = plan_talks(replace(SMALL, talks=1, dev_talks=0, test_talks=0))[0]
    slow = talks_module._speak_within("one two three four five six seven", talk, 4.0, rng).samples
    fast = talks_module._speak_within("one two three four five six seven", talk, 2.0, rng).samples
    assert len(fast) <= 1.8 * 16000 < len(slow)
    with pytest.raises(ValueError, match=r"is longer than 2\.0 s even at 450 words per minute"):
        talks_module._speak_within("one two three four five six seven " * 5, talk, 2.0, rng)


def test_nothing_is_left_of_an_interruption(tmp_path, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(talks_module, "_write_facts", interrupt)
    with pytest.raises(KeyboardInterrupt):
        make_talks(tmp_path / "talks", replace(SMALL, talks=1, dev_talks=0, test_talks=0, slides=1))
    assert list(tmp_path.iterdir()) == []
