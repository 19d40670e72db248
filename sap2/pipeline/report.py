"""What a run over a test set did, in numbers and in a sentence."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection

from sap2.rows import Row


@dataclasses.dataclass
class PipelineReport:
    """What a run did.

    Attributes:
        rows: of the test set; ``resumed`` had a result before, ``failed`` have none.
        changed: results that were made again, since their rows or audio files are no longer the same.
        seconds, audio_seconds: wall time of decoding, and the audio decoded in it.
        picked, unlisted: keywords of all results.
        cut_off: replies that reached the limit of tokens.
        asked_again: replies that looked like the list and were decoded again without it; ``leaks`` of them were.
        corrected: keywords that the spotter put right in the transcripts.
        audio_tower_runs: for an utterance, at most.
        errors: path of the file of errors.
    """

    rows: int = 0
    resumed: int = 0
    changed: int = 0
    failed: int = 0
    seconds: float = 0.0
    audio_seconds: float = 0.0
    picked: int = 0
    unlisted: int = 0
    cut_off: int = 0
    asked_again: int = 0
    leaks: int = 0
    corrected: int = 0
    audio_tower_runs: int = 0
    errors: str = ""

    def count(self, results: Collection[Row]) -> None:
        """Add up what the results say."""
        self.picked = sum(len(row["picked_keywords"]) for row in results)
        self.unlisted = sum(len(row["unlisted_keywords"]) for row in results)
        self.cut_off = sum(len(row["cut_off"]) for row in results)
        again = [row["leak"] for row in results if "leak" in row]
        self.asked_again, self.leaks = len(again), sum(leak["replaced"] for leak in again)
        self.corrected = sum(len(row.get("corrections", ())) for row in results)
        self.audio_tower_runs = max((row["audio_tower_runs"] for row in results), default=0)

    def __str__(self) -> str:
        rate = f", real-time factor {self.seconds / self.audio_seconds:.3f}" if self.audio_seconds else ""
        failed = f"{self.failed} failed ({self.errors})" if self.failed else "0 failed"
        changed = f", {self.changed} made again since their rows changed" if self.changed else ""
        again = corrected_line(self.corrected) + again_line(self.asked_again, self.leaks)
        return (
            f"{self.rows} rows, {failed}, {self.resumed} done before{changed}; {self.audio_seconds:.1f} s of audio in "
            f"{self.seconds:.1f} s{rate}; {self.picked} keywords picked, {self.unlisted} replied that no list has; "
            f"{self.cut_off} replies cut off{again}; audio tower runs an utterance: {self.audio_tower_runs}"
        )


def again_line(asked_again: int, leaks: int) -> str:
    """The guard's part of a summary; nothing where no reply was decoded again."""
    return f", {asked_again} decoded again without the list ({leaks} had leaked it)" if asked_again else ""


def corrected_line(corrected: int) -> str:
    """The corrector's part of a summary; nothing where no keyword was corrected."""
    return f", {corrected} keyword{'s' if corrected > 1 else ''} put right" if corrected else ""
