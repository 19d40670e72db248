"""Files of a corpus that somebody wrote again in another format: .wav, .mp3 or .opus in place of .flac."""

from __future__ import annotations

from pathlib import Path

from sap2.audio import AUDIO_SUFFIXES, probe_seconds
from sap2.slides.decks import is_junk

_SLACK = 0.5  # seconds that an encoder may add
_WITHOUT_LOSS = (".flac", ".wav", ".aiff", ".aif")


def by_quality(path: Path) -> tuple[bool, str]:
    """A key by which a file without loss comes first."""
    return path.suffix.lower() not in _WITHOUT_LOSS, path.name


def same_recording(one: Path, other: Path) -> bool:
    """Whether two files of one name in one folder are the same in two formats: they are of one length."""
    return one.parent == other.parent and abs(probe_seconds(one) - probe_seconds(other)) < _SLACK


def transcoded(path: Path) -> Path | None:
    """The file of that name in another audio format, in the same folder; None where there is none."""
    if not path.parent.is_dir():
        return None
    names = (path.with_name(path.stem + suffix) for suffix in sorted(AUDIO_SUFFIXES))
    return min((other for other in names if other.is_file() and not is_junk(other)), key=by_quality, default=None)
