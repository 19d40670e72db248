"""``swift infer --strict false`` leaves bad rows out of the results, names and counts them."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from model_rows import context, row

from sap2.errors import InputError
from sap2.ms_swift.skipping import make_infer_skip


class Engine:
    """Answers as ms-swift's engine does: an error is raised, or stands for its response where ``strict`` is off."""

    strict = True

    def infer(self, rows, request_config, use_tqdm):
        responses = []
        for one in rows:
            if "bad" in one["messages"][0]["content"]:
                error = InputError(f"row {one['id']}: no audio")
                if self.strict:
                    raise error
                responses.append(error)
            else:
                message = SimpleNamespace(content="hi")
                responses.append(SimpleNamespace(choices=[SimpleNamespace(message=message, logprobs=None)]))
        return responses


@pytest.fixture
def infer():
    """ms-swift's pipeline with our patch, on an engine that needs no model."""
    from swift.pipelines.infer.infer import SwiftInfer

    pipeline = type("SwiftInfer", (SwiftInfer,), {"__init__": lambda self: None})
    make_infer_skip(pipeline)

    def infer(rows, model_type="sap_qwen2_audio", strict=False):
        made = pipeline()
        made.infer_engine, made.infer_kwargs = Engine(), {}
        settings = {"infer_backend": "transformers", "rank": -1, "global_world_size": 1, "task_type": "causal_lm"}
        made.args = SimpleNamespace(model_type=model_type, strict=strict, **settings)
        return made._batch_infer(rows, None)

    return infer


ROWS = [row(text, reply="hi", id=f"u{number}") for number, text in enumerate(["good", "bad", "good"])]


def rows():
    return [{**one, "messages": [dict(message) for message in one["messages"]]} for one in ROWS]


def test_bad_rows_are_left_out_named_and_counted(infer, capsys):
    results = infer(rows())
    assert [(result["id"], result["response"]) for result in results] == [("u0", "hi"), ("u2", "hi")]
    assert capsys.readouterr().err == (
        "sap2: skipped: row u1: no audio\nsap2: 1 bad rows were skipped (--strict false)\n"
    )


@pytest.mark.parametrize(("model_type", "strict"), [("sap_qwen2_audio", True), ("qwen2_audio", False)])
def test_otherwise_the_first_bad_row_stops(infer, model_type, strict):
    with pytest.raises(InputError, match="row u1: no audio"):
        infer(rows(), model_type, strict)


def test_a_row_that_is_too_long_is_skipped(infer, make_template, wavs, capsys):
    """The engine itself, with the template's own refusal."""
    from swift.infer_engine.infer_engine import InferEngine

    template = make_template("transformers", max_length=120)
    long = row(f"<audio>{context('emily, ' * 60)}", [wavs[0]], reply=None, id="u7")
    engine = SimpleNamespace(template=template)
    encoded, errors = InferEngine._batch_encode(engine, [row("hi", reply=None), long], strict=False)
    assert len(encoded) == 1
    assert [index for index, _ in errors] == [1] and "u7" in str(errors[0][1])
