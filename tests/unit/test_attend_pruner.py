"""Stage one by the retriever: sap2-tiny with one of random weights, whose numbers a slow search must give."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import soundfile
import torch
from safetensors.torch import load_file, save_file

from sap2.audio import load_samples
from sap2.errors import InputError
from sap2.model.adapters import LAYERS
from sap2.model.context import tokenize_terms
from sap2.model.retriever import TermRetriever
from sap2.pipeline.asking import Hearing
from sap2.pipeline.loading import LoadedModel
from sap2.pipeline.prompting import Encoder
from sap2.pipeline.pruners import PruneOptions
from sap2.pipeline.run import PipelineOptions, run_pipeline
from sap2.pipeline.transcriber import Transcriber
from sap2.prompts import parse_prune_reply
from sap2.pruning.attending import AttendedBank
from sap2.pruning.bank import Term, TermBank
from sap2.rowfiles import read_rows
from sap2.shipped import FOLDER
from sap2.tiny.speech import speak

LISTS = (["Vendett", "krovon", "nail veek"], ["jaltitol"], [])
BANK = ["listen", "silent", "KROVON", "Wozniak|woz nee ack :2", "zebra"]


@pytest.fixture(scope="module")
def adapter(tmp_path_factory):
    """sap2-tiny-asr with a retriever."""
    folder = shutil.copytree(FOLDER / "sap2-tiny-asr", tmp_path_factory.mktemp("attend") / "adapter")
    retriever = TermRetriever(128, 4)
    numbers = torch.Generator().manual_seed(0)
    retriever.presence.weight.data = torch.randn(2, 128, generator=numbers) / 10
    weights = load_file(folder / "adapter_model.safetensors")
    weights |= {f"base_model.model.model.retriever.{name}": value for name, value in retriever.state_dict().items()}
    save_file(weights, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    for name in ("adapter_config.json", "args.json"):
        content = json.loads((folder / name).read_text())
        if "modules_to_save" in content and name == "adapter_config.json":
            content["modules_to_save"] += LAYERS["sap_retriever"]
            content["auto_mapping"] = None
        else:
            content["sap_retriever"] = True
        (folder / name).write_text(json.dumps(content))
    return str(folder)


@pytest.fixture(scope="module")
def utterances(tmp_path_factory):
    folder, rows = tmp_path_factory.mktemp("said"), []
    for number, keywords in enumerate(LISTS):
        path = str(folder / f"utt{number}.wav")
        soundfile.write(path, speak("the krovon leaves"[: 10 + 3 * number]), 16_000)
        rows.append({"id": f"utt{number}", "audio": path, "text": "the krovon leaves", "keywords": keywords})
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def bank(tmp_path_factory):
    path = tmp_path_factory.mktemp("bank") / "terms.txt"
    path.write_text("\n".join(BANK) + "\n", encoding="utf-8")
    return str(path)


def decode(utterances, adapter, folder, **options):
    options = {"pruner": "attend", "prune_threshold": 0.0, "prune_top": 50, "stages": "prune", **options}
    result = folder / "result.jsonl"
    report = run_pipeline(PipelineOptions(str(utterances), str(result), "sap2-tiny", asr_adapter=adapter, **options))
    assert report.failed == 0
    return [row for _, row in read_rows(result)]


def odds_of(adapter, audio, terms):
    """Log odds of each term, searched for one by one."""
    loaded = LoadedModel("sap2-tiny", {"asr": adapter})
    encoder = Encoder(loaded.processor, 8192)
    hearing = Hearing(loaded, [encoder.hear(load_samples(audio, 16_000), "x")])
    with torch.inference_mode():
        speech, mask = hearing.speech("asr")
        speech = speech[:, : mask.sum()]
        with loaded.use("asr") as model:
            embed, retriever = model.model.get_input_embeddings(), model.model.retriever
            found = []
            for ids in tokenize_terms(loaded.processor.tokenizer, terms):
                tokens = retriever.prepare(embed(torch.tensor(ids)))
                logits = retriever.find(tokens, speech, torch.ones(speech.shape[:2], dtype=torch.bool))[0].mean(0)
                found.append((logits[1] - logits[0]).item())
    return found


def test_list_and_bank_are_ranked_by_the_probabilities_of_a_slow_search(utterances, adapter, bank, tmp_path):
    """The padding of a batch changes nothing, the case is that of the training, the list writes first."""
    rows = decode(utterances, adapter, tmp_path, term_bank=bank)
    forms = ["listen", "silent", "wozniak", "woz nee ack", "zebra"]
    for row, keywords in zip(rows, LISTS, strict=True):
        own = keywords if "krovon" in keywords else ["KROVON", *keywords]
        odds = odds_of(adapter, row["audios"][0], [*forms, *(keyword.lower() for keyword in own)])
        odds[2] = max(odds[2:4]) + np.log(2)
        terms = ["listen", "silent", "Wozniak", None, "zebra", *own]
        expected = dict(zip(terms, 1 / (1 + np.exp(-np.array(odds))), strict=True))
        del expected[None]
        found = row["keyword_probabilities"]
        assert found == pytest.approx(expected, abs=1e-4)
        assert list(found.values()) == sorted(found.values(), reverse=True)
        assert row["picked_keywords"] == list(found) == parse_prune_reply(row["replies"]["prune"])
        assert found["listen"] == found["silent"]  # the same letters, which are sap2-tiny's tokens
        assert row["audio_tower_runs"] == 1


def test_threshold_and_top_choose_what_goes_on(utterances, adapter, bank, tmp_path):
    rows = decode(utterances, adapter, tmp_path, term_bank=bank, prune_top=2)
    assert all(row["picked_keywords"] == list(row["keyword_probabilities"])[:2] for row in rows)
    (tmp_path / "high").mkdir()
    rows = decode(utterances, adapter, tmp_path / "high", prune_threshold=1.0)
    assert all(row["picked_keywords"] == [] for row in rows)


def test_a_list_without_a_keyword(utterances, adapter, tmp_path):
    rows = decode(utterances, adapter, tmp_path)
    assert [len(row["picked_keywords"]) for row in rows] == [3, 1, 0]


def test_a_union_with_the_model_and_with_the_spotter(utterances, adapter, tmp_path):
    more = {"prune_adapter": "sap2-tiny-prune", "stages": None, "max_new_tokens": 32}
    rows = decode(utterances, adapter, tmp_path, pruner="spot+attend+generate", **more)
    assert set(rows[0]["picked_keywords"]) == set(LISTS[0]) and rows[0]["response"]


def test_a_recording_is_searched_for_a_bank(adapter, bank):
    prune = PruneOptions("attend", prune_threshold=0.0, prune_top=3, term_bank=bank)
    transcriber = Transcriber("sap2-tiny", asr_adapter=adapter, prune=prune, max_new_tokens=32)
    assert len(transcriber.transcribe(speak("the krovon leaves")).picked_keywords) == 3


@pytest.mark.parametrize(("model", "adapter"), [("sap2-tiny", "sap2-tiny-asr"), ("sap2-tiny", None)])
def test_a_model_without_a_retriever_is_told_what_to_train(utterances, tmp_path, model, adapter):
    further = rf" --adapters \S*{adapter}" if adapter else ""
    message = rf"--pruner attend needs a retriever, and \S+ has none .*; allowed: one .*--sap_train retriever{further},"
    with pytest.raises(InputError, match=message):
        decode(utterances, adapter, tmp_path)


def test_the_evidence_of_a_term_is_the_mean_of_its_tokens():
    tokens = {"ab": [1, 2], "c": [3], "cab": [3, 1, 2]}
    bank = TermBank([Term("ab", ("c",)), Term("cab", weight=2.0)])
    attended = AttendedBank(bank, lambda texts: [tokens[text] for text in texts])
    assert attended.tokens.tolist() == [1, 2, 3] and len(attended) == 2
    odds = np.array([1.0, 2.0, -6.0])
    np.testing.assert_allclose(attended.evidence(odds), [1.5, -1.0 + np.log(2)])
    np.testing.assert_allclose(attended.evidence(np.array([1.0, 2.0, 6.0])), [6.0, 3.0 + np.log(2)])
    assert [entry.keyword for entry in attended.rank(odds)] == ["ab", "cab"]
