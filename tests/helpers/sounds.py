"""Sound files of every kind, made in code."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from sap2.audio import load_samples

RATE = 16_000
SECONDS = 3.0
BIT_RATES = {"wmav2": 64_000, "libopencore_amrnb": 12_200}
"""Of the codecs that have no usual one, or not ours."""


def sound(seconds=SECONDS, rate=RATE, seed=0):
    """Tones that come and go, so that a shift in time shows."""
    time = np.arange(round(seconds * rate)) / rate
    envelope = 0.1 + 0.9 * (np.sin(2 * np.pi * 1.3 * time + seed) > 0)
    return (0.3 * envelope * np.sin(2 * np.pi * 440 * time)).astype(np.float32)


def encode(path, codec, samples, rate=RATE, layout="mono", **options):
    """Write a file with ffmpeg; the container goes by the suffix."""
    with av.open(str(path), "w", options=options) as container:
        stream = container.add_stream(codec, rate=rate, layout=layout)
        if codec in BIT_RATES:
            stream.bit_rate = BIT_RATES[codec]
        if str(path).endswith("mkv"):
            picture = container.add_stream("mpeg4", rate=10)
            picture.width = picture.height = 64
            picture.pix_fmt = "yuv420p"
            for packet in picture.encode(av.VideoFrame(64, 64, "yuv420p")):
                container.mux(packet)
        fifo, resampler = av.AudioFifo(), av.AudioResampler(stream.format, layout, rate)
        frame = av.AudioFrame.from_ndarray(samples.reshape(1, -1), "flt", layout)
        frame.sample_rate, frame.time_base = rate, Fraction(1, rate)
        for part in resampler.resample(frame):
            fifo.write(part)
        size = stream.codec_context.frame_size or 1024
        while (part := fifo.read(size)) or (part := fifo.read(size, partial=True)):
            container.mux(stream.encode(part))
        container.mux(stream.encode(None))
    return str(path)


def envelope(samples):
    return np.sqrt(np.square(samples[: len(samples) // 160 * 160]).reshape(-1, 160).mean(1))


def assert_same_sound(path, expected, slack=0.06):
    """The length, and what is loud when."""
    heard = load_samples(path, RATE)
    assert abs(len(heard) - len(expected)) < slack * RATE
    length = min(len(heard), len(expected))
    one, other = envelope(heard[:length]), envelope(expected[:length])
    assert np.corrcoef(one, other)[0, 1] > 0.85
    assert 0.7 < one.mean() / other.mean() < 1.4


def header_changed(path, change):
    data = bytearray(Path(path).read_bytes())
    change(data)
    Path(path).write_bytes(data)
