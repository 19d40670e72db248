"""What the converters are made of: tables, the slides around an utterance, audio of any kind."""

import numpy as np
import pytest
import soundfile as sf
from hypothesis import given
from hypothesis import strategies as st

from sap2.audio import load_samples
from sap2.data.cutting import Cut, cut_all
from sap2.lengths import SAMPLING_RATE as RATE
from sap2.slides.neighbours import keywords_around, nearest_slides, place_slides
from sap2.tables import Segment, read_keywords, read_segments, read_table


def tone(seconds, rate=RATE, channels=1):
    samples = 0.5 * np.sin(np.arange(round(seconds * rate)) * 2 * np.pi * 440 / rate)
    return np.repeat(samples[:, None], channels, axis=1)


def test_tables(tmp_path):
    path = tmp_path / "table"
    path.write_text("a\n\nb  x  y \n")
    assert {name: entry.value for name, entry in read_table(path).items()} == {"a": "", "b": "x  y"}
    assert read_table(path)["b"].where == f"{path}:3"
    with pytest.raises(ValueError, match="table:1: nothing after 'a'"):
        read_table(path, required=True)
    path.write_text("a A$B C$ $$D\nb\n")
    assert read_keywords(path) == {"a": ["A", "B C", "D"], "b": []}


@given(st.lists(st.text()))
def test_any_table_is_taken_apart_or_refused_with_its_line(tmp_path_factory, lines):
    path = tmp_path_factory.mktemp("kaldi") / "table"
    path.write_bytes("\n".join(lines).encode("utf-8", "surrogatepass"))
    for read in (read_table, read_keywords, read_segments):
        try:
            read(path)
        except ValueError as error:
            number = int(str(error).removeprefix(f"{path}:").split(":")[0])
            assert 1 <= number <= path.read_bytes().count(b"\n") + 1


def test_slides_in_the_order_of_time_whatever_the_order_of_lines():
    segments = [Segment("", name, "r", start, start + 1) for name, start in (("c", 9), ("a", 1), ("b", 2), ("d", 10))]
    keywords = {"a": ["x"], "b": ["x"], "c": ["y"], "d": ["x"]}
    for order in (segments, segments[::-1]):
        slides, numbers = place_slides(order, keywords)
        assert slides == {"r": [["x"], ["y"], ["x"]]}
        assert numbers == {"a": 0, "b": 0, "c": 1, "d": 2}


def test_nearest_slides_fill_up_at_the_end_and_pass_over_repeats():
    slides = [["a"], [], ["b"], ["a"], ["c"], ["d"]]
    assert nearest_slides(slides, 0, 3) == [["a"], ["b"], ["c"]]
    assert nearest_slides(slides, 4, 3) == [["c"], ["a"], ["d"]]
    assert nearest_slides(slides, 1, 2) == [[], ["a"]]
    assert keywords_around(slides, 1, 2) == ["a"]
    assert keywords_around([["A", "b"], ["B", "c"]], 0, 2) == ["A", "b", "c"]


@given(st.lists(st.lists(st.sampled_from("abcdef"), max_size=3), min_size=1, max_size=9), st.integers(1, 9), st.data())
def test_nearest_slides_equal_a_slow_search(slides, count, data):
    own = data.draw(st.integers(0, len(slides) - 1))
    expected = [slides[own]]
    for distance in range(1, len(slides)):
        for other in (own - distance, own + distance):
            if 0 <= other < len(slides) and slides[other] and slides[other] not in expected and len(expected) < count:
                expected.append(slides[other])
    assert nearest_slides(slides, own, count) == expected


@pytest.mark.parametrize("suffix", ["wav", "flac", "mp3", "ogg"])
def test_audio_of_any_kind_and_rate(tmp_path, suffix):
    path = tmp_path / f"x.{suffix}"
    sf.write(path, tone(2, 44_100, 2), 44_100)
    samples = load_samples(path, RATE, 0.5, 1.5)
    assert samples.shape == (16_000,)
    assert 0.45 < np.abs(samples).max() < 0.6


def test_audio_that_is_none(tmp_path):
    (tmp_path / "x.wav").write_bytes(b"no")
    with pytest.raises(ValueError, match=r"x\.wav cannot be read"):
        load_samples(tmp_path / "x.wav", RATE)
    report = cut_all([Cut(str(tmp_path / "absent.wav"), 0, 1, str(tmp_path / "y.flac"))])
    assert "does not exist" in report.failures[str(tmp_path / "y.flac")]
    assert not (tmp_path / "y.flac").exists()
