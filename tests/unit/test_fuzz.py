"""Damaged headers, cut files and random bytes at every reader: an InputError or a result, and nothing else.

``-m slow`` runs it; ``FUZZ_EXAMPLES`` sets how many files each reader gets.
"""

from __future__ import annotations

import functools
import io
import json
import os
import struct
import wave
import zipfile

import numpy as np
import pytest
from decks import pdf, picture
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sap2.audio import load_samples, missing_seconds, probe_seconds, true_seconds
from sap2.data.biasing import read_biasing
from sap2.data.check import CheckOptions, check_file
from sap2.data.utterances import read_utterances
from sap2.errors import InputError
from sap2.pipeline.items import read_items
from sap2.rowfiles import read_rows, write_rows
from sap2.scoring.inputs import Problems, read_biasing_list, read_keyword_file, read_results
from sap2.slides.captions import read_captions
from sap2.slides.decks import read_deck
from sap2.slides.manifest import read_manifest
from sap2.slides.sources import read_list
from sap2.tables import read_keywords, read_segments, read_table

pytestmark = pytest.mark.slow
EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "150"))
RATE = 16_000

UNCHECKED = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
many = settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=UNCHECKED)


@functools.cache
def sound(kind):
    """A second of sound as a file of that kind."""
    import av
    import soundfile

    samples = (0.3 * np.sin(np.arange(RATE) / 7)).astype(np.float32)
    content = io.BytesIO()
    if kind in ("wav", "flac", "ogg", "mp3", "aiff", "w64", "caf"):
        soundfile.write(content, samples, RATE, format=kind.upper())
    else:
        codec = {"mp4": "aac", "mkv": "aac", "webm": "libopus"}[kind]
        rate = 48_000
        with av.open(content, "w", format="matroska" if kind == "mkv" else kind) as container:
            stream = container.add_stream(codec, rate=rate, layout="mono")
            resampler = av.AudioResampler(stream.format, "mono", rate)
            frame = av.AudioFrame.from_ndarray(samples.reshape(1, -1), "flt", "mono")
            frame.sample_rate = RATE
            fifo = av.AudioFifo()
            for part in [*resampler.resample(frame), *resampler.resample(None)]:
                fifo.write(part)
            size = stream.codec_context.frame_size or 960
            while (part := fifo.read(size)) or (part := fifo.read(size, partial=True)):
                container.mux(stream.encode(part))
            container.mux(stream.encode(None))
    return content.getvalue()


@functools.cache
def deck(suffix):
    """A small deck of that kind."""
    content = io.BytesIO()
    if suffix == ".pdf":
        return pdf(["Kubernetes", None, "Wozniak"])
    if suffix == ".pptx":
        import pptx

        presentation = pptx.Presentation()
        slide = presentation.slides.add_slide(presentation.slide_layouts[5])
        slide.shapes.title.text = "Kubernetes"
        image = io.BytesIO()
        picture("x").save(image, "PNG")
        slide.shapes.add_picture(image, 0, 0, 5_000_000, 4_000_000)
        presentation.save(content)
    elif suffix == ".txt":
        return b"Kubernetes\fWozniak"
    else:
        image = picture("Wozniak")
        image.save(content, {".tif": "TIFF", ".jpg": "JPEG"}.get(suffix, suffix[1:].upper()))
    return content.getvalue()


def damages(data):
    """What happens to files: cut off, bytes changed (most at the beginning), something put in between, or replaced."""
    place = st.one_of(st.integers(0, min(len(data), 120)), st.integers(0, len(data)))
    change = st.tuples(place, st.binary(min_size=1, max_size=8))
    number = st.sampled_from([0, 1, 0x7FFFFFFF, 0xFFFFFFFF, 0x80000000]).map(lambda n: struct.pack("<I", n))

    def put(changes):
        changed = bytearray(data)
        for at, new in changes:
            changed[at : at + len(new)] = new
        return bytes(changed)

    return st.one_of(
        place.map(lambda end: data[:end]),
        st.lists(st.one_of(change, st.tuples(place, number)), min_size=1, max_size=4).map(put),
        change.map(lambda part: data[: part[0]] + part[1] + data[part[0] :]),
        st.binary(max_size=300),
        st.binary(max_size=100).map(lambda tail: data[:40] + tail),
        st.just(data + data),
    )


def survives(read, *expected):
    """The result of a reader, or None where it refuses its input in one line."""
    try:
        result = read()
    except InputError as error:
        assert str(error) and "\n" not in str(error)
        return None
    assert not expected or isinstance(result, expected), type(result)
    return result


KINDS = ["wav", "flac", "ogg", "mp3", "aiff", "w64", "caf", "mp4", "mkv", "webm"]


@many
@given(data=st.data(), kind=st.sampled_from(KINDS))
def test_audio(tmp_path, data, kind):
    path = tmp_path / f"x.{kind}"
    path.write_bytes(data.draw(damages(sound(kind))))
    samples = survives(lambda: load_samples(path, RATE), np.ndarray)
    if samples is not None:
        assert samples.dtype == np.float32 and np.isfinite(samples).all()
        seconds = survives(lambda: true_seconds(path), int, float)
        assert seconds is not None and abs(seconds - len(samples) / RATE) < 0.1 + 0.01 * seconds
        survives(lambda: missing_seconds(path, seconds), float)
    survives(lambda: probe_seconds(path), int, float)
    survives(lambda: load_samples(io.BytesIO(path.read_bytes()), RATE), np.ndarray)
    survives(lambda: load_samples(path, RATE, 0.3, 0.6), np.ndarray)


@many
@given(rate=st.integers(0, 2**32 - 1), channels=st.integers(0, 2**16 - 1), bits=st.sampled_from([0, 8, 16, 24, 32, 99]))
def test_wav_headers(tmp_path, rate, channels, bits):
    """Every number of a header that a wav can have."""
    with wave.open(str(tmp_path / "x.wav"), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE)
        file.writeframes(bytes(range(256)) * 20)
    content = bytearray((tmp_path / "x.wav").read_bytes())
    content[22:36] = struct.pack("<HIIHH", channels, rate, (rate * 2) % 2**32, 2, bits)
    (tmp_path / "x.wav").write_bytes(content)
    survives(lambda: load_samples(tmp_path / "x.wav", RATE), np.ndarray)


DECKS = [".pdf", ".pptx", ".png", ".jpg", ".tif", ".gif", ".webp", ".bmp", ".txt"]


@many
@given(data=st.data(), suffix=st.sampled_from(DECKS))
def test_decks(tmp_path, monkeypatch, data, suffix):
    monkeypatch.setattr("sap2.slides.decks.picture_text", lambda pixels, where: "x")
    monkeypatch.setattr("sap2.slides.pdf.picture_text", lambda pixels, where: "x")
    monkeypatch.setattr("sap2.slides.presentations.picture_text", lambda pixels, where: "x")
    path = tmp_path / f"deck{suffix}"
    path.write_bytes(data.draw(damages(deck(suffix))))
    slides = survives(lambda: read_deck(path, notes=True), list)
    assert slides is None or all(isinstance(text, str) for text in slides)


@many
@given(data=st.data())
def test_parts_of_a_pptx(tmp_path, monkeypatch, data):
    """Damage within the archive, which its checksums would otherwise hide."""
    monkeypatch.setattr("sap2.slides.presentations.picture_text", lambda pixels, where: "x")
    with zipfile.ZipFile(io.BytesIO(deck(".pptx"))) as old:
        names = old.namelist()
        chosen = data.draw(st.sampled_from(names))
        with zipfile.ZipFile(tmp_path / "deck.pptx", "w") as new:
            for name in names:
                new.writestr(name, data.draw(damages(old.read(name))) if name == chosen else old.read(name))
    survives(lambda: read_deck(tmp_path / "deck.pptx"), list)


PIECES = (
    *("a", "b c", "\t", "\n", " ", "$", ",", "1", "2.5", "-1", "nan", "1e999", '["x"]', "[", "{}", "null", '"', "\f"),
    *("id,audio,start,end\n", "00:00:01,000 --> 00:00:02,000\n", "99:99:99.9 --> 0:0.0\n", "WEBVTT\n\n"),
    *('{"id": "a", ', '"messages": [', '{"role": "user", "content": "<audio>x"}', "]", "}", '"audios": ["a.wav"]'),
    *("<|startofcontext|>", "<|endofcontext|>", "\ufeff", "\x00", "\ud800", "\u202e"),
)
TEXT = st.one_of(st.text(max_size=60), st.lists(st.sampled_from(PIECES), max_size=25).map("".join))
CONTENT = st.one_of(
    TEXT.map(lambda text: text.encode("utf-8", "surrogatepass")),
    TEXT.map(lambda text: text.encode("utf-16", "surrogatepass")),
    st.binary(max_size=80),
)
TABLES = [
    read_table,
    read_segments,
    read_keywords,
    read_biasing,
    read_list,
    read_captions,
    lambda path: read_keyword_file(path, Problems()),
    lambda path: read_biasing_list(path, Problems()),
]


@many
@given(content=CONTENT)
def test_tables_lists_and_captions(tmp_path, content):
    (tmp_path / "table").write_bytes(content)
    for read in TABLES:
        survives(lambda read=read: read(tmp_path / "table"))


@many
@given(content=CONTENT, suffix=st.sampled_from([".csv", ".tsv", ".jsonl", ".json"]))
def test_manifests(tmp_path, content, suffix):
    path = tmp_path / f"my{suffix}"
    path.write_bytes(content)
    survives(lambda: read_manifest(path), list)


ROW_READERS = [
    lambda path: list(read_rows(path)),
    lambda path: list(read_utterances(path)),
    lambda path: check_file(path, CheckOptions(read_audio=False)),
    lambda path: read_results(path, Problems()),
    lambda path: list(read_items(path, "asr")),
]


@many
@given(content=CONTENT, suffix=st.sampled_from([".jsonl", ".json"]))
def test_row_files(tmp_path, content, suffix):
    path = tmp_path / f"rows{suffix}"
    path.write_bytes(content)
    for read in ROW_READERS:
        survives(lambda read=read: read(path))


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    path = tmp_path_factory.mktemp("table") / "x.parquet"
    write_rows(path, [{"id": "a", "messages": [{"role": "user", "content": "x"}], "audios": ["a"]}])
    return path.read_bytes()


@many
@given(data=st.data())
def test_parquet_files(tmp_path, table, data):
    (tmp_path / "rows.parquet").write_bytes(data.draw(damages(table)))
    for read in ROW_READERS:
        survives(lambda read=read: read(tmp_path / "rows.parquet"))


NAMES = (
    *("messages", "conversations", "query", "response", "history", "system", "role", "content", "from", "value"),
    *("audios", "audio", "audio_path", "path", "id", "text", "keywords", "labels", "session", "start", "end"),
)
JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=6), st.just("<audio>a</audio>")),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.sampled_from(NAMES), inner, max_size=6)),
    max_leaves=15,
)


@many
@given(rows=st.lists(JSON, max_size=3))
def test_rows_of_any_shape(tmp_path, rows):
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    for read in ROW_READERS:
        survives(lambda read=read: read(tmp_path / "rows.jsonl"))
