"""What runs in the workers of a Ray cluster: an engine with both stages, and the blocks of rows that it decodes.

A worker is trusted to die: whatever ends its process, Ray starts it again and sends it the block that it had.
"""

from __future__ import annotations

import json
import os
import socket
import threading
import traceback
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from sap2 import __version__
from sap2.errors import EngineError, InputError
from sap2.pipeline.items import Item
from sap2.pipeline.ranks import Rank
from sap2.pipeline.report import PipelineReport
from sap2.pipeline.worker import Worker
from sap2.rows import Row

if TYPE_CHECKING:
    from sap2.pipeline.run import PipelineOptions

Block = Mapping[str, Sequence[str]]
"""Columns of texts, as Ray Data hands them over."""

RESULT, ERROR = "result", "error"
REFUSED, NO_ENGINE, FAULT = "refused", "no engine", "fault"
"""Kinds of answers: two of a row; three that end the run, with a text for the person who started it."""


class Setup(NamedTuple):
    """What a worker has in common with the command that sends the rows.

    Attributes:
        version: of this package.
        folder: where the command runs; relative paths in rows begin there.
        threads: of torch; None: its own choice.
    """

    version: str
    folder: str
    threads: int | None

    def take(self) -> None:
        """Make this process one of that command's.

        Raises:
            InputError: another version of this package is installed here.
        """
        if self.version != __version__:
            raise InputError(
                f"sap2 {__version__} is installed on {socket.gethostname()}, {self.version} where the command runs; "
                f"allowed: one version everywhere"
            )
        if os.path.isdir(self.folder):  # noqa: PTH112 - else only absolute paths are found
            os.chdir(self.folder)
        if self.threads is not None:
            import torch

            torch.set_num_threads(self.threads)


def rows_as_block(items: Sequence[Item]) -> Block:
    """Rows to be sent to a worker."""
    return {"item": [json.dumps(item._asdict()) for item in items]}


class RowDecoder:
    """One worker: a model and an engine, in a process of its own. Ray Data makes it and calls it with blocks.

    Args:
        options: of the run.
        setup: what is the same everywhere.
    """

    def __init__(self, options: PipelineOptions, setup: Setup):
        self._options = options
        self._ended: Block | None = None
        self._loaded = Worker(_Kept(), PipelineReport())
        try:
            setup.take()
            self._loaded.load(options, Rank())
        except (InputError, EngineError) as error:
            self._ended = _answer([(REFUSED if isinstance(error, InputError) else NO_ENGINE, str(error))])
        except Exception:  # raised here, Ray would try it again and again
            self._ended = _answer([(FAULT, traceback.format_exc())])

    def __call__(self, block: Block) -> Block:
        """Answers to a block of rows: a kind and a JSON object each. Safe to call from several threads."""
        if self._ended is not None:
            return self._ended
        kept = _Kept()
        worker = Worker(kept, PipelineReport())
        worker.decoder = self._loaded.decoder
        items = [Item(**json.loads(text)) for text in block["item"]]
        try:
            batches = worker.plan(items, self._options, report_errors=True, show=False)
            worker.decode(batches, self._options.num_workers, show=False)
        except EngineError:
            os._exit(1)  # this process is of no use without its engine: Ray starts another one
        except Exception:
            return _answer([(FAULT, traceback.format_exc())])
        return _answer([(kind, json.dumps(row)) for kind, row in kept.rows])


class _Kept:
    """In place of result files: what a worker sends back."""

    def __init__(self) -> None:
        self.rows: list[tuple[str, Row]] = []
        self._lock = threading.Lock()

    def append(self, rows: Sequence[Row]) -> None:
        """Results."""
        with self._lock:
            self.rows += [(RESULT, row) for row in rows]

    def append_errors(self, rows: Sequence[Row]) -> None:
        """Errors of rows."""
        with self._lock:
            self.rows += [(ERROR, row) for row in rows]


def _answer(pairs: Sequence[tuple[str, str]]) -> Block:
    return {"kind": [kind for kind, _ in pairs], "content": [content for _, content in pairs]}
