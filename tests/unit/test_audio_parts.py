"""Files that were joined of several, and streams."""

from __future__ import annotations

import io
import struct

import numpy as np
import pytest
import soundfile
from sounds import RATE, SECONDS, assert_same_sound, envelope, header_changed, sound

from sap2.audio import load_samples, true_seconds
from sap2.errors import InputError


@pytest.mark.parametrize("suffix", ["mp3", "ogg", "opus", "flac"])
def test_all_parts_of_files_that_were_joined(tmp_path, suffix):
    paths = [tmp_path / f"{number}.{suffix}" for number in range(2)]
    for number, path in enumerate(paths):
        options = {"format": "OGG", "subtype": "OPUS"} if suffix == "opus" else {}
        soundfile.write(path, sound(seed=number), RATE, **options)
    joined = tmp_path / f"joined.{suffix}"
    joined.write_bytes(b"".join(path.read_bytes() for path in paths))
    heard = load_samples(joined, RATE)
    # an encoder may put silence in front of a part, and after it
    shifts = [envelope(heard[round((SECONDS + shift) * RATE) :])[:280] for shift in np.arange(0, 0.2, 0.01)]
    assert max(np.corrcoef(one, envelope(sound(seed=1))[:280])[0, 1] for one in shifts) > 0.85
    assert true_seconds(joined) == pytest.approx(2 * SECONDS, abs=0.2)


@pytest.mark.parametrize("note", [b"", b"note" + struct.pack("<I", 20_000) + bytes(20_000)])
@pytest.mark.parametrize("rates", [(RATE, RATE, RATE), (44_100, 8_000, RATE)])
def test_all_parts_of_wav_files_that_were_joined(tmp_path, note, rates):
    """One after the other with their headers, as `cat` joins them; the last was never closed."""
    sounds = [sound(rate=rate, seed=number) for number, rate in enumerate(rates)]
    path = tmp_path / "joined.wav"
    with path.open("wb") as joined:
        for number, (samples, rate) in enumerate(zip(sounds, rates, strict=True)):
            soundfile.write(tmp_path / "one.wav", samples, rate)
            if number == 2:
                header_changed(tmp_path / "one.wav", lambda data: data.__setitem__(slice(40, 44), bytes(4)))
            joined.write((tmp_path / "one.wav").read_bytes() + (note if number < 2 else b""))
    expected = np.concatenate([sound(seed=number) for number in range(3)])
    assert_same_sound(path, expected)
    assert true_seconds(path) == pytest.approx(3 * SECONDS, abs=0.01)
    assert np.array_equal(load_samples(io.BytesIO(path.read_bytes()), RATE), load_samples(path, RATE))
    piece = load_samples(path, RATE, SECONDS + 0.5, SECONDS + 1.5)
    same = load_samples(path, RATE)[round((SECONDS + 0.5) * RATE) :][: len(piece)]
    assert len(piece) == RATE and np.corrcoef(piece, same)[0, 1] > 0.99


def test_a_damaged_part_of_a_joined_wav_is_refused(tmp_path):
    soundfile.write(tmp_path / "a.wav", sound(), RATE)
    data = (tmp_path / "a.wav").read_bytes()
    (tmp_path / "a.wav").write_bytes(data + data.replace(b"fmt ", b"xxxx"))
    with pytest.raises(InputError, match=r"a\.wav cannot be read"):
        load_samples(tmp_path / "a.wav", RATE)


def test_streams_are_read_as_files_are(tmp_path):
    """A recorder's wav without a length and a flac that was joined, as an upload brings them."""
    soundfile.write(tmp_path / "a.wav", sound(), RATE)
    header_changed(tmp_path / "a.wav", lambda data: data.__setitem__(slice(40, 44), bytes(4)))
    soundfile.write(tmp_path / "a.flac", sound(), RATE)
    (tmp_path / "b.flac").write_bytes(2 * (tmp_path / "a.flac").read_bytes())
    for name, seconds in (("a.wav", SECONDS), ("b.flac", 2 * SECONDS)):
        content = (tmp_path / name).read_bytes()
        assert len(load_samples(io.BytesIO(content), RATE)) == pytest.approx(seconds * RATE, abs=RATE // 10)
