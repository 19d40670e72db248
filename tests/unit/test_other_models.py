"""With the plugin installed, other models' runs are as without it, and our flags are refused there."""

from __future__ import annotations

import json
import pickle
import re
import subprocess
import sys

import pytest
from swift.arguments import BaseArguments, InferArguments, SftArguments
from swift.utils import check_json_format, parse_args

from sap2.errors import InputError
from sap2.ms_swift.arguments import OWN

STOCK = BaseArguments.__mro__[1]


def help_of(cls) -> str:
    """What ``--help`` prints, without the options of ours."""
    from swift.utils.utils import HfArgumentParser, _patch_get_type_hints

    with _patch_get_type_hints():
        parser = HfArgumentParser([cls], prog="swift")
    options = parser.format_help().partition("options:")[2]
    paragraphs = re.split(r"\n(?=  -)", options)
    return "\n".join(p.rstrip() for p in paragraphs if not any(p.startswith(f"  --{name}") for name in OWN))


@pytest.fixture
def parse(tiny, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("train.jsonl", "test.jsonl"):
        (tmp_path / name).write_text('{"messages": [{"role": "user", "content": "x"}]}\n')

    def parse(cls, *flags, model_type="qwen2_audio"):
        args, rest = parse_args(cls, ["--model", str(tiny), "--model_type", model_type, *flags])
        assert rest == []
        return args

    return parse


def test_the_plugin_is_there():
    assert STOCK.__name__ == "BaseArguments" and STOCK is not BaseArguments
    assert not hasattr(STOCK, "sap_window_size")


def test_help_of_other_flags_is_ms_swifts_own():
    assert help_of(BaseArguments) == help_of(STOCK)


@pytest.mark.parametrize("flags", [[], ["--strict"], ["--strict", "true"], ["--tuner_type", "full", "--seed", "3"]])
def test_arguments_are_ms_swifts_own(parse, flags):
    ours, stock = parse(BaseArguments, *flags), parse(STOCK, *flags)
    assert repr(ours) == repr(stock)
    content, expected = (json.dumps(check_json_format({**vars(args), "hub": None})) for args in (ours, stock))
    assert content == expected  # what args.json is made of
    assert ours.get_model_kwargs().keys() == stock.get_model_kwargs().keys()
    assert type(ours.strict) is bool


def test_arguments_travel_to_another_process(parse):
    """As ``swift deploy`` sends them."""
    args = parse(InferArguments)
    assert vars(pickle.loads(pickle.dumps(args))).keys() == vars(args).keys()
    assert args.sap_window_size is None


@pytest.mark.parametrize(
    ("flags", "name"),
    [
        (["--sap_window_size", "7"], "--sap_window_size 7"),
        (["--sap_pooling", "mean"], "--sap_pooling mean"),
        (["--num_attention_heads", "8"], "--num_attention_heads 8"),
        (["--sap_truncate_audio", "true"], "--sap_truncate_audio True"),
        (["--train_type", "full"], "--train_type full"),
    ],
)
def test_our_flags_are_refused(parse, flags, name):
    with pytest.raises(
        InputError, match=rf"^{name} is a setting of sap_qwen2_audio, and the model type is qwen2_audio;"
    ):
        parse(InferArguments, *flags)


def test_both_names_of_the_tuner_must_agree(parse):
    train = ["--dataset", "train.jsonl", "--output_dir", "out", "--tuner_type", "full", "--train_type"]
    assert parse(SftArguments, *train, "full", model_type="sap_qwen2_audio").tuner_type == "full"
    with pytest.raises(InputError, match="--train_type adalora and --tuner_type full are one flag"):
        parse(SftArguments, *train, "adalora", model_type="sap_qwen2_audio")


def test_importing_ms_swift_imports_no_code_of_the_model():
    code = (
        "import swift.arguments, sys; print(*[name for name in sys.modules if 'sap2.' in name or 'modeling_' in name])"
    )
    environment = "import sap2; " + code
    done = subprocess.run([sys.executable, "-c", environment], capture_output=True, text=True, timeout=300, check=True)
    names = done.stdout.split()
    assert "sap2.ms_swift.register" in names
    assert not [name for name in names if "qwen2_audio.modeling" in name or name.startswith("sap2.model.modeling")]
    assert not {"sap2.model.processing", "sap2.ms_swift.template"} & set(names)
