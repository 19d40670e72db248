"""Stage one without asking the model: with sap2-tiny, on speech that says names it has never heard."""

from __future__ import annotations

import json

import pytest
import soundfile

from sap2.commands.calibrate import plot_reliability
from sap2.data.extract_predicted_keywords import extract_predicted_keywords
from sap2.errors import InputError
from sap2.pipeline.calibrating import fit_rows, summary
from sap2.pipeline.loading import LoadedModel
from sap2.pipeline.pruners import Choice, PruneOptions
from sap2.pipeline.run import PipelineOptions, run_pipeline
from sap2.pipeline.stages import plan_stages
from sap2.pipeline.transcriber import Transcriber
from sap2.prompts import asr_prompt, parse_prune_reply
from sap2.pruning.calibration import Calibration
from sap2.pruning.spotting import RankedKeyword
from sap2.rowfiles import read_rows
from sap2.tiny.speech import speak

NAMES = ("vendett", "krovon", "nailveek", "jaltitol")
OTHERS = [f"{first}{last}" for first in ("bra", "do", "fle", "ki", "sto") for last in ("min", "tarnick", "veldon")]


@pytest.fixture(scope="module")
def utterances(tmp_path_factory):
    """Two names are said in each, and its list has one of them."""
    folder, rows = tmp_path_factory.mktemp("said"), []
    for number, (name, other) in enumerate(zip(NAMES, [*NAMES[1:], NAMES[0]], strict=True)):
        said, path = f"the {name} leaves a {other}", str(folder / f"utt{number}.wav")
        soundfile.write(path, speak(said), 16_000)
        rows.append({"id": f"utt{number}", "audio": path, "text": said, "keywords": [name, *OTHERS]})
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def bank(tmp_path_factory):
    path = tmp_path_factory.mktemp("bank") / "terms.txt"
    path.write_text("\n".join([*NAMES, "…", *(f"{other}s" for other in OTHERS)]) + "\n", encoding="utf-8")
    return str(path)


def decode(utterances, folder, **options):
    result = folder / "result.jsonl"
    report = run_pipeline(
        PipelineOptions(
            str(utterances), str(result), "sap2-tiny", asr_adapter="sap2-tiny-asr", max_new_tokens=64, **options
        )
    )
    assert report.failed == 0
    return {row["id"]: row for _, row in read_rows(result)}


def test_the_spotter_picks_from_the_list_and_the_bank(utterances, bank, tmp_path, capsys):
    rows = decode(utterances, tmp_path, term_bank=bank, prune_threshold=0.0, prune_top=4)
    assert "4 that cannot be" not in capsys.readouterr().err
    for number, row in enumerate(rows.values()):
        said = {NAMES[number], NAMES[(number + 1) % 4]}
        assert said <= set(row["picked_keywords"]) and len(row["picked_keywords"]) == 4
        likely = list(row["keyword_probabilities"].values())
        assert (
            likely == sorted(likely, reverse=True) and list(row["keyword_probabilities"])[:4] == row["picked_keywords"]
        )
        assert parse_prune_reply(row["replies"]["prune"]) == row["picked_keywords"]
        assert row["audio_tower_runs"] == 1
    stage_one = {row["id"]: row for _, row in read_rows(tmp_path / "result.prune.jsonl")}
    assert stage_one["utt0"]["picked_keywords"] == rows["utt0"]["picked_keywords"]


def test_the_bank_is_announced(utterances, bank, tmp_path, capsys):
    decode(utterances, tmp_path, stages="prune", term_bank=bank)
    assert "19 terms, 20 forms; 1 that cannot be spelled ('…')" in capsys.readouterr().err


def test_a_long_bank_costs_no_prompt(utterances, tmp_path):
    """More terms than the model has positions for."""
    bank = tmp_path / "bank.txt"
    bank.write_text("\n".join(f"{a}{b}{c}" for a in OTHERS for b in OTHERS for c in "xyz"), encoding="utf-8")
    rows = decode(utterances, tmp_path, pruner="spot", term_bank=str(bank), prune_threshold=0.0)
    assert all(len(row["picked_keywords"]) == 8 for row in rows.values())


def test_the_model_is_told_what_was_picked(utterances, tmp_path):
    rows = decode(utterances, tmp_path, pruner="spot", prune_threshold=0.0, prune_top=2)
    picked = rows["utt1"]["picked_keywords"]
    whole = tmp_path / "whole.jsonl"
    content = f"<audio>{asr_prompt(['krovon', *OTHERS])}"
    row = {"id": "utt1", "messages": [{"role": "user", "content": content}], "audios": ["x.wav"]}
    whole.write_text(json.dumps(row) + "\n", encoding="utf-8")
    extract_predicted_keywords(tmp_path / "result.jsonl", whole, tmp_path / "picked.jsonl", lenient=True)
    (_, written) = next(iter(read_rows(tmp_path / "picked.jsonl")))
    assert written["messages"][0]["content"] == f"<audio>{asr_prompt(picked)}"  # in the order of the ranking


def test_what_the_spotter_reads_is_looked_up(utterances, tmp_path):
    rows = decode(utterances, tmp_path, pruner="match", stages="prune", prune_threshold=0.0)
    assert sum(NAMES[number] in row["picked_keywords"] for number, row in enumerate(rows.values())) >= 3


def test_a_union_has_what_both_find(utterances, tmp_path):
    run = {"prune_adapter": "sap2-tiny-prune", "pruner": "spot+generate", "prune_top": 2, "prune_threshold": 0.0}
    rows = decode(utterances, tmp_path, **run)
    for row in rows.values():
        named = {keyword for keyword in parse_prune_reply(row["replies"]["prune"]) if keyword in row["keywords"]}
        assert named <= set(row["picked_keywords"]) and len(row["picked_keywords"]) >= 2


def test_a_recording_is_searched_for_a_bank(bank):
    options = PruneOptions(term_bank=bank, prune_threshold=0.0, prune_top=3)
    transcriber = Transcriber("sap2-tiny", asr_adapter="sap2-tiny-asr", prune=options, max_new_tokens=64)
    transcript = transcriber.transcribe(speak("the krovon leaves a vendett"))
    assert len(transcriber.bank) == 19 and {"krovon", "vendett"} <= set(transcript.picked_keywords)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"pruner": "guess"}, "--pruner 'guess' is unknown; allowed: generate, spot, attend, match"),
        ({"pruner": "generate", "term_bank": "x"}, "--pruner generate cannot search a --term-bank"),
        ({"prune_top": 0}, "--prune-top 0"),
        ({"prune_threshold": 1.5}, "threshold from 0 to 1"),
    ],
)
def test_bad_options_are_refused(options, message):
    with pytest.raises(InputError, match=message):
        PruneOptions(**options).names()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("asr", None, "b", ("spot",)), "--stages asr would not use --pruner spot"),
        (("prune,asr", "a", "b", ("spot", "match")), r"--pruner spot\+match would not use --prune-adapter a"),
        (("prune,asr", None, "b", ("spot", "generate")), "needs --prune-adapter"),
    ],
)
def test_stages_that_do_not_fit_a_pruner(arguments, message):
    with pytest.raises(InputError, match=message):
        plan_stages(*arguments)


def test_the_stages_of_a_pruner():
    assert plan_stages(None, None, "b", ("spot",)).adapters == {"asr": "b"}
    picking = plan_stages("prune", None, "b", ("spot",))
    assert picking.stages == ("prune",) and picking.adapters == {"asr": "b"}
    assert plan_stages("prune", "a", None, ("spot",)).adapters == {"prune": "a"}


def test_a_model_without_a_spotter_is_refused(tiny, utterances, tmp_path):
    with pytest.raises(InputError, match=r"--pruner spot needs a spotter, and .* has none; allowed: a checkpoint"):
        run_pipeline(PipelineOptions(str(utterances), str(tmp_path / "r.jsonl"), str(tiny), pruner="spot"))


def test_which_keywords_go_on():
    ranked = [RankedKeyword("a", 0.9), RankedKeyword("b", 0.3), RankedKeyword("c", 0.2)]
    assert Choice(2, 0.0).of(ranked) == ["a", "b"]
    assert Choice(3, 0.3).of(ranked) == ["a", "b"]
    assert Choice(3, 0.95).of(ranked) == []


def test_probabilities_are_fitted_on_utterances(utterances, bank, tmp_path):
    loaded = LoadedModel("sap2-tiny", {"asr": "sap2-tiny-asr"})
    fit = fit_rows(loaded, utterances, bank)
    assert fit.utterances == 4 and fit.calibration.salience > 0
    assert fit_rows(loaded, utterances, bank) == fit
    assert fit.error < 0.1 and summary(fit)[0].startswith("4 utterances, ")
    plot_reliability(fit, tmp_path / "plot.png")
    assert (tmp_path / "plot.png").stat().st_size > 1000
    assert loaded.calibration("asr") == (Calibration.load(loaded._folders["asr"]) or Calibration())


def test_rows_without_a_transcript_cannot_calibrate(utterances, tmp_path):
    rows = [{**row, "text": None} for _, row in read_rows(utterances)]
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    loaded = LoadedModel("sap2-tiny", {"asr": "sap2-tiny-asr"})
    with pytest.raises(InputError, match="utt0 has no transcript"):
        fit_rows(loaded, path)
