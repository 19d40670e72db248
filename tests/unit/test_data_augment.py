"""``sap2 data augment``: noisy copies of recordings, named by the same rows."""

from __future__ import annotations

import numpy as np
import pytest
import soundfile
from commands import tool
from model_rows import row
from utterances import rows_of

from sap2.augment.options import Distance, NoiseOptions
from sap2.data.augment import augment
from sap2.errors import InputError
from sap2.rowfiles import write_rows

AT_TEN = NoiseOptions(Distance(10, 10), ("noise", "babble"), 1.0)


@pytest.fixture
def utterances(tmp_path, wavs):
    path = tmp_path / "test.jsonl"
    write_rows(path, [{"id": f"u{n}", "audio": wav, "text": "hi", "keywords": ["a"]} for n, wav in enumerate(wavs)])
    return path


def samples_of(path):
    return soundfile.read(path)[0]


def test_utterances_keep_everything_but_their_audio(utterances, tmp_path, wavs):
    assert augment(utterances, tmp_path / "noisy.jsonl", tmp_path / "noisy", AT_TEN) == 3
    for before, after in zip(rows_of(utterances), rows_of(tmp_path / "noisy.jsonl"), strict=True):
        assert after == {**before, "audio": str(tmp_path / "noisy" / f"{before['id']}.flac")}
        clean, noisy = samples_of(before["audio"]), samples_of(after["audio"])
        scale = min(1.0, np.abs(noisy).max() / 0.989)  # the whole outcome is made quieter where it would be cut off
        if scale < 1:
            added = 10 * np.log10(np.mean(clean**2) / np.mean((noisy - clean) ** 2))
            assert added == pytest.approx(10, abs=0.1)


def test_rows_of_any_form(tmp_path, wavs):
    rows = [
        row("<audio>x", [wavs[0]], id="one"),
        row("<audio>x <audio>y", [wavs[0], wavs[1]], id="two"),
        row(f"<audio>{wavs[2]}</audio>x", [], id="inline"),
    ]
    write_rows(tmp_path / "rows.jsonl", rows)
    augment(tmp_path / "rows.jsonl", tmp_path / "noisy.jsonl", tmp_path / "noisy", AT_TEN)
    one, two, inline = rows_of(tmp_path / "noisy.jsonl")
    folder = tmp_path / "noisy"
    assert one == {**rows[0], "audios": [str(folder / "one.flac")]}
    assert two["audios"] == [str(folder / "two.flac"), str(folder / "two.1.flac")]
    assert inline["audios"] == [str(folder / "inline.flac")] and inline["messages"][0]["content"] == "<audio>x"


def test_workers_make_the_same(utterances, tmp_path):
    for count in (1, 2):
        augment(utterances, tmp_path / f"{count}.jsonl", tmp_path / str(count), AT_TEN, workers=count)
    one, two = ({path.name: path.read_bytes() for path in (tmp_path / str(n)).iterdir()} for n in (1, 2))
    assert one == two and len(one) == 3
    assert [row["id"] for row in rows_of(tmp_path / "2.jsonl")] == ["u0", "u1", "u2"]


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({"id": "a"}, r"rows\.jsonl:1: a noisy copy needs an audio file, and an id to be named after; id is 'a'"),
        ({"id": "a/b", "audio": "WAV"}, "id is 'a/b'"),
        ({"audio": "WAV"}, "id is ''"),
        ({"id": "a", "audio": "nothere.wav"}, r"rows\.jsonl:1: .*nothere\.wav"),
    ],
)
def test_bad_rows(tmp_path, wavs, record, message):
    record = {name: wavs[0] if value == "WAV" else value for name, value in record.items()}
    write_rows(tmp_path / "rows.jsonl", [record])
    with pytest.raises((InputError, OSError), match=message):
        augment(tmp_path / "rows.jsonl", tmp_path / "noisy.jsonl", tmp_path / "noisy", AT_TEN)
    assert not (tmp_path / "noisy.jsonl").exists()


def test_ids_are_unique_and_recordings_stay(tmp_path, wavs):
    write_rows(tmp_path / "rows.jsonl", [{"id": "a", "audio": wavs[0]}, {"id": "a", "audio": wavs[1]}])
    with pytest.raises(InputError, match=r"rows\.jsonl:2: id 'a' occurs a second time"):
        augment(tmp_path / "rows.jsonl", tmp_path / "noisy.jsonl", tmp_path / "noisy", AT_TEN)
    own = tmp_path / "own.flac"
    soundfile.write(own, samples_of(wavs[0]), 16_000)
    write_rows(tmp_path / "rows.jsonl", [{"id": "own", "audio": str(own)}])
    with pytest.raises(InputError, match=r"the copy would replace the recording .*own\.flac; allowed: another --audio"):
        augment(tmp_path / "rows.jsonl", tmp_path / "noisy.jsonl", tmp_path, AT_TEN)


def test_the_command(utterances, tmp_path, capsys):
    flags = ["--audio-dir", tmp_path / "noisy", "--output", tmp_path / "noisy.jsonl"]
    assert tool("augment", utterances, *flags, "--snr", "0:5", "--kinds", "room,hum") == 0
    assert "noisy.jsonl: 3 rows with audio in" in capsys.readouterr().out
    assert tool("augment", utterances, *flags, "--snr", "5:0") == 2
    assert "--snr is '5:0', and 5 is more than 0" in capsys.readouterr().err
