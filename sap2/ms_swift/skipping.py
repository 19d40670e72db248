"""``swift infer --strict false``: bad rows are left out of the results, named and counted.

ms-swift knows ``strict`` when it reads and trains, and stops at a bad row when it decodes.
"""

from __future__ import annotations

import functools
import sys
from types import SimpleNamespace
from typing import Any

from sap2.errors import input_error_line
from sap2.model.settings import MODEL_TYPE

_NO_REPLY = SimpleNamespace(choices=[SimpleNamespace(message=SimpleNamespace(content=None), logprobs=None)])
"""Stands for the response to a bad row until the results of its batch are together."""


def make_infer_skip(pipeline: type) -> None:
    """Let ms-swift's ``SwiftInfer`` go on after a bad row where ``--strict false`` asks for it. Once is enough."""
    original = pipeline._batch_infer
    if hasattr(original, "__wrapped__"):
        return

    @functools.wraps(original)
    def batch_infer(self, val_dataset, request_config):
        if self.args.model_type != MODEL_TYPE or self.args.strict:
            return original(self, val_dataset, request_config)
        engine = self.infer_engine
        engine.strict = False
        self.infer = functools.partial(_infer_and_name_bad_rows, engine)
        try:
            results = original(self, val_dataset, request_config)
        finally:
            del self.infer
        kept = [row for row in results if row["response"] is not None]
        if len(kept) < len(results):
            print(f"sap2: {len(results) - len(kept)} bad rows were skipped (--strict false)", file=sys.stderr)
        return kept

    pipeline._batch_infer = batch_infer


def _infer_and_name_bad_rows(engine: Any, *args: Any, **kwargs: Any) -> list[Any]:
    responses = engine.infer(*args, **kwargs)
    for index, response in enumerate(responses):
        if isinstance(response, Exception):
            print(f"sap2: skipped: {input_error_line(response)}", file=sys.stderr)
            responses[index] = _NO_REPLY
    return responses
