"""Long recordings of a manifest to utterances that a model can hear: by their captions, or at their pauses."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterable

from sap2.audio import open_recording, probe_seconds, true_seconds
from sap2.audio_urls import is_there, kept_audio
from sap2.errors import InputError
from sap2.lengths import MIN_SECONDS, SAMPLING_RATE
from sap2.slides.captions import Cue, merge_cues, read_captions
from sap2.slides.manifest import Entry

_MARGIN = 0.1  # seconds of the recording before and after what is said


@dataclasses.dataclass
class Division:
    """The entries of utterances, and how many pieces were ``left_out`` since nothing could be heard or cut there."""

    entries: list[Entry] = dataclasses.field(default_factory=list)
    left_out: int = 0


def divide_recordings(entries: Iterable[Entry], max_seconds: float) -> Division:
    """The entries, with those of recordings divided.

    An entry with captions becomes an utterance for what is said between its start and end, in pieces of at most
    ``max_seconds``. One that is longer than that and has neither captions nor text is cut at its pauses, for decoding.
    Pieces are called ``ID_0001``, ``ID_0002``, …, and their session is the recording, where it has none.

    Raises:
        InputError: captions cannot be read or name times that the recording does not have, or a text is of more than
            the model hears; the message names the line of the manifest.
    """
    division = Division()
    for entry in entries:
        try:
            pieces = _pieces(entry, max_seconds)
        except InputError as error:
            raise InputError(f"{entry.where}: {error}") from None
        if pieces is None:
            division.entries.append(entry)
            continue
        heard = [piece for piece in pieces if MIN_SECONDS <= piece.end - piece.start <= max_seconds]
        division.left_out += len(pieces) - len(heard)
        division.entries += [_piece_of(entry, number, piece) for number, piece in enumerate(heard, 1)]
    return division


def _pieces(entry: Entry, max_seconds: float) -> list[Cue] | None:
    """What an entry is divided into; None where it is an utterance as it stands."""
    if not is_there(entry.audio):
        return None  # which is refused with all others that are missing
    if entry.captions is None and entry.end is not None and entry.end - (entry.start or 0.0) <= max_seconds:
        return None
    total = probe_seconds(kept_audio(entry.audio), str(entry.audio))
    start, end = entry.start or 0.0, entry.end if entry.end is not None else total
    if entry.captions is not None:
        if entry.text is not None:
            raise InputError("text and captions say the same thing twice; one of them is enough")
        return _by_captions(entry, max_seconds)
    if end - start <= max_seconds:
        return None
    if entry.text is not None:
        raise InputError(
            f"{end - start:.1f} s with one text, and the model hears {max_seconds:g} s; allowed: captions (.srt, "
            f".vtt), or a row with start, end and text for each utterance"
        )
    return _at_pauses(entry, max_seconds)


def _by_captions(entry: Entry, max_seconds: float) -> list[Cue]:
    assert entry.captions is not None
    if not entry.captions.is_file():
        raise InputError(f"no captions at {entry.captions}; allowed: an .srt or .vtt file")
    cues = read_captions(entry.captions)
    # pieces up to what a header claims would not all be there
    total = true_seconds(kept_audio(entry.audio), str(entry.audio))
    start, end = entry.start or 0.0, entry.end if entry.end is not None else total
    if (cues[-1].start + cues[-1].end) / 2 > total:
        raise InputError(
            f"{entry.captions} goes on to {cues[-1].end:.1f} s, and {entry.audio} ends at {total:.1f} s: they do not "
            f"belong together"
        )
    inside = [cue for cue in cues if start <= (cue.start + cue.end) / 2 < end]
    pieces = merge_cues(inside, max_seconds - 2 * _MARGIN)
    edges = [start, *((a.end + b.start) / 2 for a, b in itertools.pairwise(pieces)), end]
    return [
        Cue(max(p.start - _MARGIN, min(p.start, before)), min(p.end + _MARGIN, max(p.end, after), total), p.text)
        for p, before, after in zip(pieces, edges, edges[1:], strict=False)
    ]


def _at_pauses(entry: Entry, max_seconds: float) -> list[Cue]:
    from sap2.pipeline.segmentation import Cutting, cut_at_pauses
    from sap2.pipeline.voice_activity import detect_by_energy  # Silero's network would need torch

    start = entry.start or 0.0
    samples = open_recording(kept_audio(entry.audio), SAMPLING_RATE, start, entry.end, str(entry.audio))
    runs = cut_at_pauses(samples, SAMPLING_RATE, Cutting(max_seconds), detect_by_energy)
    return [Cue(start + first / SAMPLING_RATE, start + last / SAMPLING_RATE, "") for first, last in runs]


def _piece_of(entry: Entry, number: int, piece: Cue) -> Entry:
    return dataclasses.replace(
        entry,
        id=f"{entry.id}_{number:04d}",
        start=round(piece.start, 3),
        end=round(piece.end, 3),
        text=piece.text or None,
        captions=None,
        session=entry.session or entry.id,
    )
