"""Audio behind addresses: what the rows of a file name is fetched, what a request to a server names is not."""

from __future__ import annotations

import json

import fsspec
import kaldiio
import numpy as np
import pytest
import soundfile
from commands import sap2, tool
from model_rows import context, row
from pipeline_rows import prune_row, write_jsonl

from sap2 import audio_urls
from sap2.audio import load_samples, open_recording
from sap2.audio_urls import about_seconds, kept_audio, load_audio, opened_audio
from sap2.errors import InputError

RATE = 16_000


@pytest.fixture
def bucket(speeches):
    """A place in memory that fsspec reads, with an utterance as wav, flac and mp3; the names of what was opened."""
    folder = "memory://talks"
    for suffix in ("wav", "flac", "mp3"):
        with fsspec.open(f"{folder}/one.{suffix}", "wb") as file:
            soundfile.write(file, np.tile(speeches[0], 3), RATE, format=suffix.upper())
    yield folder
    fsspec.filesystem("memory").rm("/talks", recursive=True)


@pytest.fixture
def fetched(monkeypatch):
    """How many bytes each reading took, by address."""
    counts = []
    fetch = audio_urls._fetch
    monkeypatch.setattr(audio_urls, "_fetch", lambda url, count: counts.append(len(d := fetch(url, count))) or d)
    return counts


@pytest.mark.parametrize("suffix", ["wav", "flac", "mp3"])
@pytest.mark.parametrize("in_memory", [1 << 24, 1000])
def test_the_sound_is_that_of_the_file(bucket, tmp_path, suffix, in_memory, monkeypatch):
    monkeypatch.setattr(audio_urls, "_IN_MEMORY", in_memory)
    monkeypatch.setenv("TMPDIR", str(tmp_path / "large"))
    (tmp_path / "large").mkdir()
    copy = tmp_path / f"one.{suffix}"
    copy.write_bytes(fsspec.filesystem("memory").cat_file(f"/talks/one.{suffix}"))
    url = f"{bucket}/one.{suffix}"
    assert np.array_equal(load_audio(url, RATE), load_samples(copy, RATE))
    with opened_audio(f"file://{copy}") as source:
        assert np.array_equal(load_samples(source, RATE), load_samples(copy, RATE))
    assert about_seconds(url) == pytest.approx(soundfile.info(copy).duration, abs=0.1)
    assert not list((tmp_path / "large").iterdir())


def test_of_a_wav_or_flac_the_beginning_tells_the_length(bucket, fetched):
    for suffix in ("wav", "flac"):
        about_seconds(f"{bucket}/one.{suffix}")
    assert fetched == [1 << 16, 1 << 16]


def test_a_path_is_read_as_it_is(wavs):
    with opened_audio(wavs[0]) as source:
        assert source == wavs[0] == kept_audio(wavs[0])


def test_an_entry_of_an_archive_is_fetched_alone(bucket, speeches, tmp_path):
    path, scp = tmp_path / "wav.ark", tmp_path / "wav.scp"
    kaldiio.save_ark(
        str(path), {n: (RATE, (s * 32767).astype(np.int16)) for n, s in zip("abc", speeches, strict=True)}, scp=str(scp)
    )
    fsspec.filesystem("memory").pipe_file("/talks/wav.ark", path.read_bytes())
    entry = scp.read_text().splitlines()[1].split()[1]
    place = entry.rpartition(":")[2]
    assert np.array_equal(load_audio(f"{bucket}/wav.ark:{place}", RATE), load_samples(entry, RATE))
    with pytest.raises(InputError, match=rf"audio {bucket}/wav.ark:3 cannot be read \(no sound there"):
        load_audio(f"{bucket}/wav.ark:3", RATE)


def test_what_cannot_be_fetched_is_one_line_with_the_address(bucket, monkeypatch):
    for url, reason in [
        (f"{bucket}/none.wav", r"memory://talks/none.wav cannot be fetched \(there is none\)"),
        ("nowhere://talks/one.wav", r"nowhere://talks/one.wav cannot be fetched \(Protocol not known"),
    ]:
        for read in (about_seconds, lambda url: load_audio(url, RATE)):
            with pytest.raises(InputError, match=reason):
                read(url)
    fsspec.filesystem("memory").pipe_file("/talks/empty.wav", b"")
    with pytest.raises(InputError, match=r"audio memory://talks/empty.wav is empty"):
        load_audio(f"{bucket}/empty.wav", RATE)
    monkeypatch.setattr(audio_urls, "_IN_MEMORY", 1000)
    monkeypatch.setattr(audio_urls, "MAX_BYTES", 2000)
    with pytest.raises(InputError, match=r"one.wav has more than 0 GiB"):
        load_audio(f"{bucket}/one.wav", RATE)


def test_a_package_that_lacks_is_named(monkeypatch):
    def url_to_fs(url):
        raise ImportError("Install s3fs to access S3")

    monkeypatch.setattr(audio_urls, "url_to_fs", url_to_fs)
    with pytest.raises(InputError, match=r"audio s3://b/a.wav cannot be fetched \(Install s3fs to access S3\)"):
        load_audio("s3://b/a.wav", RATE)


def test_the_pipeline_decodes_what_rows_name(bucket, wavs, tmp_path):
    rows = [prune_row("there", audios=[f"{bucket}/one.flac"]), prune_row("none", audios=[f"{bucket}/none.flac"])]
    path, result = write_jsonl(tmp_path / "rows.jsonl", rows), tmp_path / "result.jsonl"
    given = ["pipeline", "--model", "sap2-tiny", "--max-new-tokens", 2, "--val-dataset", path, "--result-path", result]
    assert sap2(*given) == 1
    assert [json.loads(line)["audios"] for line in result.read_text().splitlines()] == [[f"{bucket}/one.flac"]]
    errors = [json.loads(line) for line in (tmp_path / "result.errors.jsonl").read_text().splitlines()]
    assert [(row["id"], "memory://talks/none.flac cannot be fetched" in row["error"]) for row in errors] == [
        ("none", True)
    ]
    before = result.read_text()
    assert sap2(*given) == 1 and result.read_text() == before  # goes on, and asks for no state of the address
    rows[0]["audios"] = [f"{bucket}/one.wav"]
    write_jsonl(tmp_path / "rows.jsonl", rows)
    assert sap2(*given) == 1 and "one.wav" in result.read_text()


@pytest.mark.parametrize("suffix", ["flac", "mp3"])
def test_a_manifest_is_cut_from_an_address_which_is_fetched_once(bucket, tmp_path, suffix, fetched):
    url = f"{bucket}/one.{suffix}"
    (tmp_path / "talks.csv").write_text(
        f"id,audio,start,end,text\na,{url},0,0.5,hi\nb,{url},0.5,1.5,guys\nc,{url},,,all\n"
    )
    given = ["talks", tmp_path / "talks.csv", "--output", tmp_path / "u.jsonl", "--audio-dir", tmp_path / "cut"]
    assert tool(*given, "--workers", 1) == 0
    assert len(fetched) == 1
    rows = [json.loads(line) for line in (tmp_path / "u.jsonl").read_text().splitlines()]
    whole = open_recording(kept_audio(url), RATE)[:]
    for (first, last), utterance in zip([(0, 8_000), (8_000, 24_000)], rows[:2], strict=True):
        assert np.allclose(soundfile.read(utterance["audio"])[0], whole[first:last], atol=1e-3)
    assert rows[2]["audio"] == url
    assert tool(*given) == 0 and len(fetched) == 1  # the pieces are there


def test_the_tables_of_a_corpus_may_name_addresses(bucket, tmp_path):
    split = tmp_path / "corpus" / "dev"
    split.mkdir(parents=True)
    tables = {
        "wav.scp": f"t1 {bucket}/one.flac\n",
        "segments": "u1 t1 0.0 1.0\n",
        "text": "u1 HI\n",
        "keywords": "u1 EMILY\n",
    }
    for name, text in tables.items():
        (split / name).write_text(text)
    given = [tmp_path / "corpus", "--split", "dev", "--audio-dir", tmp_path / "cut", "--output", tmp_path / "u.jsonl"]
    assert tool("slidespeech", *given, "--workers", 1) == 0
    assert soundfile.info(json.loads((tmp_path / "u.jsonl").read_text())["audio"]).frames == RATE


def test_check_reads_them(bucket, tmp_path, capsys):
    rows = [prune_row(reply="emily", audios=[f"{bucket}/{name}"]) | {"id": name} for name in ("one.flac", "none.flac")]
    assert tool("check", write_jsonl(tmp_path / "rows.jsonl", rows)) == 1
    shown = capsys.readouterr().out
    assert "memory://talks/none.flac cannot be fetched" in shown and "one.flac:" not in shown


def test_rows_of_a_file_may_name_addresses_and_requests_to_a_server_may_not(make_template, bucket):
    template = make_template()
    request = row(context("emily"), f"{bucket}/one.flac")
    with pytest.raises(InputError, match=r"one\.flac is an address, which only rows of a file may name"):
        template.encode(request)
    template.opens_addresses = True
    assert len(template.encode(request)["input_ids"]) > 10


def test_who_takes_requests_opens_no_address(tiny, monkeypatch):
    from swift.arguments import DeployArguments, InferArguments
    from swift.model import get_processor

    processor = get_processor(str(tiny), model_type="sap_qwen2_audio")
    opens = {}
    for arguments in (InferArguments, DeployArguments):
        made = arguments(model=str(tiny), model_type="sap_qwen2_audio")
        opens[arguments.__name__] = made.get_template(processor).opens_addresses
    assert opens == {"InferArguments": True, "DeployArguments": False}


@pytest.mark.parametrize("audio", ["/a.wav", "a.wav", "C:/a.wav", "", None, "wav.ark:12", "data:audio/wav;base64,AA=="])
def test_paths_are_no_addresses(audio):
    from sap2.rows import is_url

    assert not is_url(audio) and is_url("s3://b/a.wav")
