"""One model for many callers at a time: pieces of several recordings are decoded in one batch.

A :class:`Lane` is a way through the stages. All lanes share the model; pieces of one lane may share a batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from sap2.errors import InputError
from sap2.pipeline.batching import by_halves
from sap2.pipeline.decoder import Decoder
from sap2.pipeline.pruners import PruneOptions
from sap2.pipeline.stages import ASKED, STAGES
from sap2.pipeline.transcriber import Piece, Transcriber
from sap2.pipeline.types import Segment
from sap2.pipeline.utterances import Prepared
from sap2.prompts import PRUNE


class Way(NamedTuple):
    """What a caller may choose.

    Attributes:
        stages: of :data:`sap2.pipeline.stages.STAGES`; None: those that the model was started with.
        pruner: of stage one; None: the one that the model was started with.
        bank: the file of a term bank, or None.
    """

    stages: str | None = None
    pruner: str | None = None
    bank: str | None = None


class Lane:
    """A way through the stages of one model.

    Args:
        transcriber: with the model.
        decoder: runs the stages.

    Attributes:
        pieces: :meth:`sap2.pipeline.transcriber.Transcriber.offer`.
    """

    def __init__(self, transcriber: Transcriber, decoder: Decoder):
        self._transcriber = transcriber
        self._decoder = decoder
        self.pieces = transcriber.offer

    def prepare(self, piece: Piece) -> Prepared:
        """Hear a piece and encode its first prompt; safe to call from several threads.

        Raises:
            InputError: what is wrong with the audio or the prompt.
        """
        return self._decoder.prepare(piece.job)

    def decode(self, pieces: Sequence[Piece], prepared: Sequence[Prepared]) -> list[Segment | Exception]:
        """The segments of a batch, in its order; an error takes the place of a segment that has none.

        Raises:
            EngineError: the engine has died.
        """
        outcomes = by_halves(list(prepared), self._decoder.decode)
        return [
            outcome if isinstance(outcome, Exception) else self._transcriber.segment(piece, outcome)
            for piece, outcome in zip(pieces, outcomes, strict=True)
        ]


class Lanes:
    """The lanes of one model, each made when it is first asked for.

    Args:
        transcriber: with the model, and the way that is taken where a caller chooses none.
        prune: its options of stage one.
    """

    def __init__(self, transcriber: Transcriber, prune: PruneOptions):
        self.transcriber = transcriber
        self._prune = prune
        self._own = transcriber.decoder
        self._made: dict[Way, Lane] = {Way(): Lane(transcriber, self._own)}

    def lane(self, way: Way) -> Lane:
        """The lane of a way.

        Raises:
            InputError: the model was not started with what it needs.
        """
        if way not in self._made:
            self._made[way] = Lane(self.transcriber, self._decoder(way))
        return self._made[way]

    def _decoder(self, way: Way) -> Decoder:
        stages = self._stages(way)
        if PRUNE not in stages:
            if way.pruner is not None or way.bank is not None:
                raise InputError(f"stages {','.join(stages)} use neither a pruner nor a term bank; allowed: prune,asr")
            return self._own.variant(stages, PruneOptions())
        prune = PruneOptions(
            way.pruner or self._prune.pruner,
            self._prune.prune_top,
            self._prune.prune_threshold,
            way.bank or self._prune.term_bank,
        )
        asks = ASKED in (prune.names() or (ASKED,))
        if asks and not self._own.loaded.has_adapter(PRUNE):
            raise InputError("this server has no adapter for the pruner generate; allowed: pruner spot or match")
        return self._own.variant(stages, prune)

    def _stages(self, way: Way) -> tuple[str, ...]:
        """The stages of a way; without a word about them, a pruner or a bank means both."""
        own = self._own.stages
        if way.stages is None:
            return STAGES["prune,asr"] if (way.pruner or way.bank) and PRUNE not in own else own
        allowed = [",".join(own)] if own == STAGES["joint"] else ["asr", "prune,asr"]
        if (name := way.stages.replace(" ", "")) not in allowed:
            raise InputError(f"stages {way.stages!r} are not served; allowed: {' | '.join(allowed)}")
        return STAGES[name]
