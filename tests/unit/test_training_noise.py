"""``swift sft --sap_noise``: rows of the training hear noise, whichever worker reads them, and no other row ever."""

from __future__ import annotations

import json
import pickle
from types import SimpleNamespace

import pytest
import torch
from model_rows import row
from swift.arguments import InferArguments, RLHFArguments, SftArguments
from swift.callbacks import callbacks_map
from swift.utils import parse_args

from sap2.augment.options import DEFAULT_KINDS, DEFAULT_SHARE, Distance, NoiseOptions
from sap2.errors import InputError
from sap2.ms_swift.noise import COLUMN, TrainingNoise

ALWAYS = NoiseOptions(Distance(0, 5), ("noise", "babble"), 1.0)


@pytest.fixture
def noisy(make_template, wavs):
    template = make_template()
    template.noise = TrainingNoise(ALWAYS, fresh=True)
    template.noise.voices = wavs
    return template


def heard(template, wav, **more):
    return template.encode(row("<audio>x", [wav], **more))["input_features"]


def test_rows_of_the_training_alone(noisy, training, wavs):
    clean = heard(training, wavs[0])
    assert torch.equal(heard(noisy, wavs[0]), clean), "a row of an evaluation has no number"
    assert not torch.equal(heard(noisy, wavs[0], **{COLUMN: 0}), clean)
    noisy.set_mode("transformers")
    assert torch.equal(heard(noisy, wavs[0], **{COLUMN: 0}), clean), "nothing is disturbed that is decoded"


def test_a_row_and_an_epoch_give_one_outcome(noisy, wavs):
    first = heard(noisy, wavs[0], **{COLUMN: 3})
    assert torch.equal(heard(noisy, wavs[0], **{COLUMN: 3}), first)
    assert not torch.equal(heard(noisy, wavs[0], **{COLUMN: 4}), first)
    noisy.noise.begin_epoch(1)
    assert not torch.equal(heard(noisy, wavs[0], **{COLUMN: 3}), first)
    noisy.noise.begin_epoch(0)
    assert torch.equal(heard(noisy, wavs[0], **{COLUMN: 3}), first)
    noisy.noise.fresh = False
    noisy.noise.begin_epoch(1)
    assert torch.equal(heard(noisy, wavs[0], **{COLUMN: 3}), first)


def test_both_audios_of_a_row_hear_something_else(noisy, wavs):
    features = noisy.encode(row("<audio>x <audio>y", [wavs[0], wavs[0]], **{COLUMN: 0}))["input_features"]
    assert not torch.equal(features[0], features[1])


class Rows(torch.utils.data.Dataset):
    def __init__(self, noise, samples):
        self.noise, self.samples = noise, samples

    def __len__(self):
        return 6

    def __getitem__(self, number):
        return torch.tensor(self.noise(self.samples, 16_000, f"{number}/0", 128_000))


def test_workers_hear_the_same_and_learn_of_the_epoch(wavs, speeches):
    noise = TrainingNoise(NoiseOptions(Distance(5, 5), ("noise",), 1.0), fresh=True)
    noise.voices = wavs
    rows = Rows(noise, speeches[2])
    loader = torch.utils.data.DataLoader(rows, batch_size=1, num_workers=2, persistent_workers=True)
    for epoch in (0, 1):
        noise.begin_epoch(epoch)
        assert all(torch.equal(batch[0], rows[number]) for number, batch in enumerate(loader))


def test_it_travels_to_workers_after_it_was_used(noisy, wavs, speeches):
    """As a worker that is spawned gets it."""
    heard(noisy, wavs[0], **{COLUMN: 0})
    copy = pickle.loads(pickle.dumps(noisy.noise))
    here, there = (noise(speeches[2], 16_000, "0/0", 128_000) for noise in (noisy.noise, copy))
    assert (here == there).all() and (here != speeches[2]).any()


# --- the flags


@pytest.fixture
def parse(tiny, wavs, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, count in (("train", 3), ("dev", 2)):
        rows = [row("<audio>x", [wavs[number]], id=f"{name}{number}") for number in range(count)]
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(one) + "\n" for one in rows))

    def parse(*flags, command=SftArguments):
        argv = ["--model", str(tiny), "--model_type", "sap_qwen2_audio", "--val_dataset", "dev.jsonl", *flags]
        training = command in (SftArguments, RLHFArguments)
        argv += ["--dataset", "train.jsonl", "--output_dir", str(tmp_path / "out")] if training else []
        return parse_args(command, argv)[0]

    return parse


@pytest.mark.parametrize("flags", [[], ["--streaming", "true", "--max_steps", "2"]])
def test_rows_of_the_training_have_numbers(parse, wavs, flags):
    args = parse("--sap_noise", "0:20", "--seed", "7", *flags)
    template = args.get_template(args.get_model_processor(load_model=False)[1])
    template.set_mode("train")
    train, val = args.load_dataset()
    assert sorted(one[COLUMN] for one in train) == [0, 1, 2] and all(COLUMN not in one for one in val)
    noise = template.noise
    assert noise.options == NoiseOptions(Distance(0, 20), DEFAULT_KINDS, DEFAULT_SHARE, None, 7) and noise.fresh
    assert sorted(noise.voices) == sorted(wavs)
    assert "input_features" in template.encode(dict(next(iter(train))))


def test_epochs_are_counted_where_noise_is_fresh(parse):
    args = parse("--sap_noise", "0:20")
    assert args.training_args.callbacks.count("sap_noise") == 1
    assert "sap_noise" not in parse("--sap_noise", "0:20", "--sap_noise_fresh", "false").training_args.callbacks
    assert "sap_noise" not in parse().training_args.callbacks
    noise = TrainingNoise(ALWAYS, fresh=True)
    trainer = SimpleNamespace(template=SimpleNamespace(noise=noise))
    callbacks_map["sap_noise"](args, trainer).on_epoch_begin(args, SimpleNamespace(epoch=2.0), None)
    assert int(noise._epoch) == 2


def test_no_noise_without_the_flag(parse):
    args = parse()
    template = args.get_template(args.get_model_processor(load_model=False)[1])
    train, _ = args.load_dataset()
    assert template.noise is None and COLUMN not in train[0]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--sap_noise", "20:0"], "--sap_noise is '20:0', and 20 is more than 0"),
        (["--sap_noise", "0:20", "--sap_noise_kinds", "rain"], "--sap_noise_kinds is 'rain'; allowed: noise"),
        (["--sap_noise", "0:20", "--sap_noise_share", "2"], "share of noisy recordings is 2.0; allowed"),
        (["--sap_noise", "0:20", "--sap_noise_share", "all"], "--sap_noise_share is 'all'; allowed: above 0, to 1"),
        (["--sap_noise", "0:20", "--sap_noise_dir", "nothere"], "noise folder nothere does not exist"),
        (["--sap_noise", "0:20", "--sap_noise_dir", "out/.."], "holds no recording"),
        (["--sap_noise_share", "0.5"], "--sap_noise_share without --sap_noise does nothing; allowed: --sap_noise"),
    ],
)
def test_bad_flags_are_refused_before_anything_is_loaded(parse, tmp_path, flags, message):
    (tmp_path / "out").mkdir()
    with pytest.raises(InputError, match=message):
        parse(*flags)


def test_noise_is_for_training(parse):
    with pytest.raises(InputError, match="--sap_noise is for training; allowed: swift sft"):
        parse("--sap_noise", "0:20", command=InferArguments)
    with pytest.raises(InputError, match="--rlhf_type grpo writes replies to clean audio; allowed: no noise"):
        parse("--sap_noise", "0:20", "--rlhf_type", "grpo", command=RLHFArguments)


def test_babble_needs_audio_files(parse, tmp_path, wavs):
    sound = {"audios": ["data:audio/wav;base64," + "A" * 2000]}
    (tmp_path / "train.jsonl").write_text(json.dumps({**row("<audio>x"), **sound}) + "\n")
    args = parse("--sap_noise", "0:20")
    with pytest.raises(InputError, match="babble needs voices, and the first rows of the training name no audio files"):
        args.load_dataset()
