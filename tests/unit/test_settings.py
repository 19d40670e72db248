"""Where a run's settings come from, through the arguments of the real commands."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch
from swift.arguments import DeployArguments, ExportArguments, InferArguments, SftArguments
from swift.model import get_model_processor
from swift.utils import parse_args

from sap2 import SAP2Qwen2AudioForConditionalGeneration, SAP2Qwen2AudioProcessor
from sap2.errors import InputError
from sap2.model.adapters import LAYERS
from sap2.model.settings import Recorded, recorded_settings, resolve_settings

COMMANDS = {"sft": SftArguments, "infer": InferArguments, "export": ExportArguments, "deploy": DeployArguments}
TRAINED = {
    "sap_window_size": 4,
    "sap_min_positions": 64,
    "sap_pooling": "salience",
    "sap_num_heads": 8,
    "sap_hidden_size": 128,
    "sap_spotter": True,
    "sap_retriever": False,
}


@pytest.fixture
def parse(tiny, tmp_path, monkeypatch):
    """Arguments of a command from its command line, on the tiny model unless another is named."""
    monkeypatch.chdir(tmp_path)
    for name in ("train.jsonl", "test.jsonl"):
        (tmp_path / name).write_text('{"messages": [{"role": "user", "content": "x"}]}\n')

    def parse(command, *flags, model=tiny):
        argv = [*flags, "--model", str(model), "--model_type", "sap_qwen2_audio"]
        if command == "sft":
            argv += ["--dataset", "train.jsonl", "--output_dir", str(tmp_path / "out"), "--check_model", "false"]
        args, rest = parse_args(COMMANDS[command], argv)
        assert rest == []
        return args

    return parse


@pytest.fixture
def adapter(tiny, tmp_path) -> Path:
    """What an adapter's folder says about the run that made it."""
    folder = tmp_path / "checkpoint-1"
    folder.mkdir()
    recorded = {"model": str(tiny), "model_type": "sap_qwen2_audio", "tuner_type": "lora", **TRAINED}
    (folder / "args.json").write_text(json.dumps({"swift_version": "4.6.0", **recorded}))
    (folder / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA"}))
    return folder


def settings_of(args):
    return {name: getattr(args, name) for name in TRAINED}


# --- flags


def test_defaults(parse):
    assert settings_of(parse("sft")) == {
        "sap_window_size": 2,
        "sap_min_positions": 0,
        "sap_pooling": "attention",
        "sap_num_heads": 4,
        "sap_hidden_size": 128,
        "sap_spotter": False,
        "sap_retriever": False,
    }


@pytest.mark.parametrize("command", COMMANDS)
def test_flags_of_the_original_readme(parse, command):
    flags = ["--sap_window_size", "4", "--compressor_hidden_size", "128", "--num_attention_heads", "8"]
    papers = {**TRAINED, "sap_pooling": "attention", "sap_min_positions": 0, "sap_spotter": False}
    assert settings_of(parse(command, *flags)) == papers
    assert settings_of(parse(command, *flags, "--sap_pooling", "salience")) == TRAINED
    own = ["--sap_window_size", "4", "--sap_hidden_size", "128", "--sap_num_heads", "8", "--sap_pooling", "mean"]
    assert settings_of(parse(command, *own)) == {**papers, "sap_pooling": "mean"}


@pytest.mark.parametrize("pooling", ["attention", "mean", "salience"])
def test_every_pooling_can_have_a_spotter_and_adapters_carry_it(parse, pooling):
    args = parse("sft", "--sap_pooling", pooling, "--sap_spotter", "true")
    assert args.sap_spotter is True and args.modules_to_save == LAYERS["sap_spotter"]
    assert not parse("sft").modules_to_save


def test_the_spotter_alone_makes_an_adapter_of_nothing_else(parse):
    args = parse("sft", "--sap_train", "spotter")
    assert args.sap_spotter is True and args.target_modules == "dummy-target-modules"
    assert all(".spotter." in name for name in args.modules_to_save)
    assert args.get_model_kwargs()["sap_settings"]["sap_spotter"] is True


def test_the_retriever_alone_makes_an_adapter_of_nothing_else(parse):
    args = parse("sft", "--sap_train", "retriever", "--sap_pooling", "salience")
    assert args.sap_retriever is True and args.sap_spotter is True
    assert args.modules_to_save == LAYERS["sap_retriever"] and args.target_modules == "dummy-target-modules"
    along = parse("sft", "--sap_retriever", "true")
    assert along.modules_to_save == LAYERS["sap_retriever"] and along.target_modules != "dummy-target-modules"


def test_a_spotter_can_be_added_to_a_checkpoint_without_one(parse, adapter):
    content = json.loads((adapter / "args.json").read_text()) | {"sap_pooling": "mean", "sap_min_positions": 0}
    (adapter / "args.json").write_text(json.dumps({**content, "sap_spotter": False}))
    assert parse("infer", "--adapters", str(adapter)).sap_spotter is False
    assert parse("infer", "--adapters", str(adapter), "--sap_spotter", "true").sap_spotter is True


def test_an_adapter_recorded_before_there_were_these_settings(parse, adapter):
    content = json.loads((adapter / "args.json").read_text())
    del content["sap_min_positions"], content["sap_spotter"]
    (adapter / "args.json").write_text(json.dumps(content))
    assert settings_of(parse("infer", "--adapters", str(adapter))) == {**TRAINED, "sap_min_positions": 0}


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("flag", ["--train_type", "--tuner_type"])
def test_both_names_of_the_tuner(parse, command, flag):
    assert parse(command, flag, "lora").tuner_type == "lora"
    if command == "sft":
        assert parse(command, flag, "full").tuner_type == "full"


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--sap_min_positions", "x"], r"--sap_min_positions is 'x'; allowed: an integer from 0"),
        (["--sap_min_positions", "8", "--sap_pooling", "mean"], r"min_positions is 8 with pooling 'mean'; allowed: 0"),
        (["--sap_train", "tower"], r"--sap_train is 'tower'; allowed: all, spotter, retriever"),
        (
            ["--sap_train", "spotter", "--tuner_type", "full"],
            r"--sap_train spotter makes an adapter .*; allowed: .* lora",
        ),
        (["--sap_spotter", "maybe"], r"--sap_spotter is 'maybe'; allowed: true, false"),
        (
            ["--sap_spotter", "false", "--sap_pooling", "salience"],
            r"--sap_spotter false with --sap_pooling salience, .*; allowed: true",
        ),
        (["--sap_window_size", "0"], r"window_size is 0; allowed: an integer from 1"),
        (["--sap_window_size", "-2"], r"window_size is -2; allowed: an integer from 1"),
        (["--sap_window_size", "x"], r"--sap_window_size is 'x'; allowed: an integer from 1"),
        (["--sap_window_size", "2.5"], r"--sap_window_size is '2\.5'; allowed: an integer from 1"),
        (["--num_attention_heads", "x"], r"--num_attention_heads is 'x'; allowed: an integer from 1"),
        (["--num_attention_heads", "3"], r"num_heads 3 does not divide hidden_size 128"),
        (["--num_attention_heads", "0"], r"num_heads is 0; allowed: an integer from 1"),
        (
            ["--compressor_hidden_size", "4096"],
            r"--compressor_hidden_size\) is 4096; .* only its width is allowed: 128",
        ),
        (["--sap_pooling", "max"], r"pooling is 'max'; allowed: attention, mean, salience"),
        (["--truncation_strategy", "split"], r"--truncation_strategy split would part a row .*; allowed: delete, left"),
    ],
)
def test_impossible_flags_are_refused_in_one_line(parse, flags, message):
    with pytest.raises(InputError, match=message) as caught:
        parse("sft", *flags)
    assert "\n" not in str(caught.value)


def test_bad_rows_stop_the_run_unless_told_otherwise(parse):
    assert parse("sft").strict is True
    assert parse("sft", "--strict", "false").strict is False


def test_streaming_skips_no_row(parse):
    flags = ["--val_dataset", "test.jsonl", "--result_path", "r.jsonl", "--strict", "false"]
    with pytest.raises(InputError, match="--strict false skips no row while it streams; allowed: --stream false"):
        parse("infer", *flags, "--stream", "true")
    assert parse("infer", *flags).strict is False
    assert parse("infer", "--strict", "false", "--stream", "true").stream is True, "a person types the rows"


def test_a_float32_model_trains_in_float32_without_an_accelerator(parse):
    if torch.accelerator.is_available():
        pytest.skip("has an accelerator")
    args = parse("sft")
    assert (args.fp16, args.bf16) == (False, False)


# --- checkpoints


@pytest.mark.parametrize("command", ["infer", "export", "deploy"])
def test_the_checkpoint_carries_its_settings(adapter, command):
    args, _ = parse_args(COMMANDS[command], ["--adapters", str(adapter)])
    assert args.model_type == "sap_qwen2_audio"
    assert settings_of(args) == TRAINED
    assert args.get_model_kwargs()["sap_settings"] == TRAINED


@pytest.mark.parametrize("how", ["--adapters", "--resume_from_checkpoint"])
def test_training_goes_on_with_the_settings_of_the_checkpoint(parse, adapter, how):
    assert settings_of(parse("sft", how, str(adapter))) == TRAINED


def test_repeating_a_setting_is_allowed(parse, adapter):
    flags = ["--sap_window_size", "4", "--num_attention_heads", "8", "--compressor_hidden_size", "128"]
    assert settings_of(parse("infer", "--adapters", str(adapter), *flags)) == TRAINED


@pytest.mark.parametrize(
    ("command", "how"),
    [
        ("infer", "--adapters"),
        ("export", "--adapters"),
        ("deploy", "--adapters"),
        ("sft", "--adapters"),
        ("sft", "--resume_from_checkpoint"),
    ],
)
@pytest.mark.parametrize(
    ("flag", "value", "trained"),
    [("--sap_window_size", "2", 4), ("--num_attention_heads", "4", 8), ("--sap_pooling", "mean", "salience")],
)
def test_a_contradiction_names_both(parse, adapter, command, how, flag, value, trained):
    message = rf"{flag} {value} contradicts {re.escape(str(adapter))}, which was trained with {flag} {trained}; allowed"
    with pytest.raises(InputError, match=message):
        parse(command, how, str(adapter), flag, value)


@pytest.fixture(scope="module")
def merged(tiny, tmp_path_factory) -> Path:
    """A whole model with settings other than the defaults."""
    folder = tmp_path_factory.mktemp("merged")
    model = SAP2Qwen2AudioForConditionalGeneration.from_pretrained(
        tiny, sap_window_size=4, sap_num_heads=8, sap_pooling="salience"
    )
    model.save_pretrained(folder)
    SAP2Qwen2AudioProcessor.from_pretrained(tiny).save_pretrained(folder)
    return folder


@pytest.mark.parametrize("command", COMMANDS)
def test_a_merged_model_carries_its_settings(merged, parse, command):
    assert settings_of(parse(command, model=merged)) == TRAINED
    message = rf"--sap_window_size 2 contradicts {re.escape(str(merged))}, .* --sap_window_size 4"
    with pytest.raises(InputError, match=message):
        parse(command, "--sap_window_size", "2", model=merged)


def test_a_merged_model_needs_no_model_type(merged):
    args, _ = parse_args(InferArguments, ["--model", str(merged)])
    assert args.model_type == "sap_qwen2_audio"
    model, processor = get_model_processor(str(merged))
    assert type(model) is SAP2Qwen2AudioForConditionalGeneration
    assert model.model.context_pooling.window_size == processor.sap_window_size == 4


def test_an_adapter_of_other_settings_does_not_fit_a_merged_model(merged, adapter, parse):
    content = json.loads((adapter / "args.json").read_text())
    (adapter / "args.json").write_text(json.dumps({**content, "sap_window_size": 8}))
    with pytest.raises(
        InputError, match=r"--sap_window_size 8 of .*checkpoint-1 contradicts .*merged.*--sap_window_size 4"
    ):
        parse("infer", "--adapters", str(adapter), model=merged)


def test_recorded_settings(tmp_path):
    assert recorded_settings(tmp_path) is None
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "qwen2_audio", "sap_window_size": 9}))
    assert recorded_settings(tmp_path) is None, "not of this model type"
    (tmp_path / "config.json").write_text(
        json.dumps({"model_type": "sap_qwen2_audio", **TRAINED, "sap_hidden_size": None})
    )
    found = {name: value for name, value in TRAINED.items() if name not in {"sap_hidden_size", "sap_retriever"}}
    assert recorded_settings(tmp_path) == Recorded(str(tmp_path), found)
    (tmp_path / "args.json").write_text(json.dumps({"model_type": "sap_qwen2_audio", "sap_window_size": 2}))
    assert recorded_settings(tmp_path).settings == {"sap_window_size": 2}, "args.json is about the training"
    (tmp_path / "args.json").write_text("{")
    with pytest.raises(InputError, match=r"args\.json: not JSON"):
        recorded_settings(tmp_path)


def test_resolve_settings(tmp_path):
    assert resolve_settings({"sap_window_size": None}, []) == {}
    assert resolve_settings({"sap_window_size": 3}, [tmp_path]) == {"sap_window_size": 3}
