"""Bootstrap, HTML report and stage-one scorer."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from commands import sap2

from sap2.pages import script_json
from sap2.scoring import figures as wer_figures
from sap2.scoring.command import Settings, evaluate
from sap2.scoring.html import page_data
from sap2.scoring.selection import KeywordRules, Selection, load_selections, picked_keywords, score_selections
from sap2.scoring.testset import Sources

HOSTILE = "</script><script>document.title='broken'</script><!--&amp;\u2028"


def result_row(key, response, labels, keywords="") -> str:
    prompt = f"<audio>Transcribe.<|startofcontext|>{keywords}<|endofcontext|>"
    messages = [{"role": "user", "content": prompt}]
    return json.dumps({"response": response, "labels": labels, "id": key, "messages": messages})


def two_systems(folder: Path, utterances: int = 60, talks: int = 4) -> Sources:
    """base gets the keyword wrong in 2 of 3 utterances, sap2 in none, but it has a wrong plain word in 1 of 6."""
    base, sap2, sessions = [], [], []
    for number in range(utterances):
        ref = f"now hear wozniak speak {number}"
        wrong = ref.replace("wozniak", "was") if number % 3 else ref
        base.append(result_row(f"u{number}", wrong, ref, "wozniak, emily"))
        sap2.append(result_row(f"u{number}", ref if number % 6 else ref.replace("now", "no"), ref, "wozniak, emily"))
        sessions.append(f"u{number} talk{number % talks}")
    for name, lines in (("base", base), ("sap2", sap2), ("sessions", sessions)):
        (folder / name).with_suffix(".jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    files = {name: folder / f"{name}.jsonl" for name in ("base", "sap2")}
    return Sources(input_files=files, utt2session=folder / "sessions.jsonl")


def test_comparison_figures(tmp_path):
    _, report = evaluate(two_systems(tmp_path), Settings(draws=500))
    (comparison,) = report.comparisons
    biased = comparison.figures["b_wer"]
    assert (comparison.base, comparison.system) == ("base", "sap2")
    assert biased["base"] == pytest.approx(200 / 3) and biased["system"] == 0.0
    assert biased["difference"] == pytest.approx(-200 / 3) and biased["relative"] == pytest.approx(-100.0)
    assert biased["low"] < -200 / 3 < biased["high"] < 0 and biased["p"] == pytest.approx(2 / 501)
    assert comparison.figures["u_wer"]["relative"] is None  # base has no error there: the change is undefined
    assert comparison.figures["recall"]["relative"] == pytest.approx(200.0)
    assert comparison.figures["precision"]["p"] == 1.0
    assert set(comparison.sessions) == {"talk0", "talk1", "talk2", "talk3"}
    assert comparison.sessions["talk1"]["b_wer"]["base"] == pytest.approx(200 / 3)
    assert comparison.whole_sessions is None  # four talks are too few


def test_drawing_whole_sessions(tmp_path):
    _, report = evaluate(two_systems(tmp_path, utterances=60, talks=10), Settings(draws=50))
    # every talk has the same share of errors, so that all draws of whole talks are alike
    assert report.comparisons[0].whole_sessions["b_wer"]["low"] == pytest.approx(-200 / 3)
    assert report.comparisons[0].figures["b_wer"]["low"] < -70


def test_bootstrap_is_that_of_a_slow_loop_and_repeats(tmp_path):
    scores, _ = evaluate(two_systems(tmp_path), Settings(draws=1))
    base, other = scores.systems["base"], scores.systems["sap2"]
    found = wer_figures.compare(base, other, draws=200, seed=5)
    assert found == wer_figures.compare(base, other, draws=200, seed=5)
    assert found["wer"]["low"] != wer_figures.compare(base, other, draws=200, seed=6)["wer"]["low"]
    drawn = np.random.default_rng(5).integers(0, 60, size=(200, 60))
    differences = []
    for sample in drawn:
        rates = []
        for system in (base, other):
            words = sum(int(system.errors[index, :, 0].sum()) for index in sample)
            rates.append(100 * sum(int(system.errors[index, :, 1:].sum()) for index in sample) / words)
        differences.append(rates[1] - rates[0])
    assert found["wer"]["low"] == pytest.approx(np.percentile(differences, 2.5))
    assert found["wer"]["high"] == pytest.approx(np.percentile(differences, 97.5))


def test_resampling_in_parts_gives_the_same_sums(monkeypatch):
    parts = np.arange(12.0).reshape(6, 2)
    whole = wer_figures.resample(parts, 50, seed=1)
    monkeypatch.setattr(wer_figures, "_CHUNK", 7)
    assert np.array_equal(whole, wer_figures.resample(parts, 50, seed=1))
    assert whole.shape == (50, 2) and set(np.unique(whole[:, 1] - whole[:, 0])) == {6.0}


def test_undefined_figures_stay_undefined(tmp_path):
    for name in ("base", "sap2"):
        (tmp_path / f"{name}.jsonl").write_text(result_row("u", "a", "a b") + "\n")
    sources = Sources(input_files={name: tmp_path / f"{name}.jsonl" for name in ("base", "sap2")})
    _, report = evaluate(sources, Settings(draws=20))
    assert set(report.comparisons[0].figures["b_wer"].values()) == {None}
    assert report.comparisons[0].figures["wer"]["difference"] == 0.0


def html_of(folder: Path, sources: Sources, *more: str) -> str:
    files = [f"{name}={path}" for name, path in sources.input_files.items()]
    page = folder / "report.html"
    assert sap2("score", *files, "--html", page, "--bootstrap", "20", *more) == 0
    return page.read_text(encoding="utf-8")


def test_html_report_is_self_contained_and_safe(tmp_path, capsys):
    row = result_row("u" + HOSTILE, "ok " + HOSTILE, "ok " + HOSTILE, "ok")
    (tmp_path / "r.jsonl").write_text(row + "\n", encoding="utf-8")
    page = html_of(tmp_path, Sources(input_files={"<b>x": tmp_path / "r.jsonl"}))
    assert page.count("<script") == 2 and page.count("</script>") == 2
    assert "<b>x" not in page and "&lt;b&gt;x" in page
    assert not re.search(r"(?:src|href)=|https?://|@import|url\(", page) and "@@" not in page
    data = json.loads(re.search(r'type="application/json">(.*?)</script>', page, re.S)[1])
    assert data["utterances"][0][0] == "u" + HOSTILE and data["names"] == ["<b>x"]


def test_script_json_has_no_markup():
    text = script_json({"a": HOSTILE})
    assert not set("<>&\u2028") & set(text) and json.loads(text) == {"a": HOSTILE}


def test_html_data_has_flags_and_operations(tmp_path):
    scores, report = evaluate(two_systems(tmp_path), Settings(draws=20))
    data = page_data(scores, report)
    base, sap2 = data["utterances"][1][6]
    assert data["utterances"][1][:6] == ["u1", "talk1", "now hear wozniak speak 1", "00100", "00100", 1]
    assert base == ["now hear was speak 1", "00000", "00100", 1, 1, None, None]
    assert sap2 == ["now hear wozniak speak 1", "00100", "00000", 0, 0, None, None]


def test_html_data_has_lists_picks_audio_and_where_it_comes_from(tmp_path):
    (tmp_path / "a b.wav").write_bytes(b"RIFF")
    row = json.loads(result_row("u1", "Hi Emily", "Hi, Emily.", "Emily, Bob"))
    rows = [{**row, "audios": [str(tmp_path / "a b.wav")], "picked_keywords": ["Emily"]}, {**row, "id": "u2"}]
    (tmp_path / "r.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "r.settings.json").write_text('{"model": "m", "prune_adapter": null, "asr_adapter": "a"}')
    sources = Sources(input_files={"sap2": tmp_path / "r.jsonl"})
    scores, report = evaluate(sources, Settings(draws=1, normalize="whisper-en", title="My talks"))
    data = page_data(scores, report, tmp_path / "pages")
    assert data["title"] == "My talks" and data["files"] == [["sap2", str(tmp_path / "r.jsonl"), "m, a"]]
    assert data["lists"] == [["Emily", "Bob"]] and [u[7] for u in data["utterances"]] == [0, 0]
    assert [u[8] for u in data["utterances"]] == ["../a%20b.wav", ""]
    assert [u[6][0][5] for u in data["utterances"]] == [["Emily"], None]
    assert data["utterances"][0][2] == "Hi, Emily."  # as it was written


def test_stage_one_counts():
    both = Selection({("emily",), ("steve", "wozniak"), ("turing",)}, {("emily",), ("turing",)}, {("emily",), ("x",)})
    nothing = Selection({("a",)}, set(), set())
    result = score_selections([both, nothing])
    assert result["micro"] == {"tp": 1, "fp": 1, "fn": 1, "precision": 50.0, "recall": 50.0, "f1": 50.0}
    assert result["macro"] == {"precision": 50.0, "recall": 50.0, "f1": 50.0}  # the second has no rate of its own
    assert (result["invented"], result["listed"], result["kept"]) == (1, 4, 1)
    assert result["compression"] == 4.0 and result["ceiling"] == 50.0


def test_stage_one_ceiling_counts_occurrences_of_the_transcript():
    ref = ["emily", "met", "steve", "and", "emily", "met", "turing"]
    listed = {("emily",), ("steve", "wozniak"), ("turing",)}
    result = score_selections([Selection(listed, {("emily",), ("turing",)}, {("emily",)}, ref)])
    # list words said: emily twice, steve, turing; emily alone is left for stage two
    assert (result["ceiling_words"], result["ceiling_reachable"], result["ceiling"]) == (4, 2, 50.0)


def test_stage_one_without_any_keyword_is_undefined():
    result = score_selections([Selection(set(), set(), set())])
    assert result["micro"]["f1"] is None and result["compression"] is None and result["ceiling"] is None


def test_picked_keywords_of_any_reply():
    assert picked_keywords("emily, wozniak.") == ["emily", "wozniak"]
    assert picked_keywords("None") == [] and picked_keywords("") == []
    assert picked_keywords("Selected keywords are: emily.\nTranscription: hi") == ["emily"]
    assert picked_keywords("Selected keywords are: emily") is None


def test_stage_one_command(tmp_path, capsys):
    rows = [
        result_row("u1", "Emily, wozniak, foo", "emily, wozniak", "emily, wozniak, turing, lovelace"),
        result_row("u2", "none", "steve jobs, turing", "steve jobs, turing, lovelace"),
    ]
    (tmp_path / "r.jsonl").write_text("\n".join(rows) + "\n")
    (tmp_path / "text").write_text("u1 hi emily wozniak emily\nu2 turing met steve jobs jobs\n")
    out = tmp_path / "o.json"
    args = ["--input_file", str(tmp_path / "r.jsonl"), "--json", str(out)]
    assert sap2("score-keywords", *args) == 0
    result = json.loads(out.read_text())["systems"]["hyp"]
    assert result["micro"]["tp"] == 2 and result["micro"]["fp"] == 1 and result["micro"]["fn"] == 2
    assert result["ceiling"] == pytest.approx(40.0) and result["compression"] == 3.5
    assert sap2("score-keywords", *args, "--ref", tmp_path / "text") == 0
    assert json.loads(out.read_text())["systems"]["hyp"]["ceiling"] == pytest.approx(300 / 7)
    assert "hyp              2       7     2          3.5         1             42.86" in capsys.readouterr().out


def test_stage_one_refuses_what_does_not_fit(tmp_path, capsys):
    (tmp_path / "r.jsonl").write_text(result_row("u1", "a", "a", "a") + "\n" + result_row("u2", None, "a") + "\n")
    (tmp_path / "text").write_text("u1 a\nu2 a\nu3 a\n")
    args = ["--input_file", str(tmp_path / "r.jsonl"), "--ref", str(tmp_path / "text")]
    assert sap2("score-keywords", *args) == 2
    error = capsys.readouterr().err
    assert "no response, label or reference (hyp): 1: u2" in error and "without a reply: 1: u3" in error
    assert sap2("score-keywords", *args, "--lenient") == 3
    assert "u3" in capsys.readouterr().out


def test_stage_one_finds_the_spoken_keywords_without_labels(tmp_path, capsys):
    (tmp_path / "r.jsonl").write_text(result_row("u1", "turing", None, "steve jobs, turing, owl") + "\n")
    (tmp_path / "text").write_text("u1 turing met steve jobs\n")
    files = {"hyp": tmp_path / "r.jsonl"}
    loaded = load_selections(files, tmp_path / "text", KeywordRules())
    assert loaded.selections["hyp"][0].spoken == {("turing",), ("steve", "jobs")} and not loaded.problems


def test_few_utterances_are_warned_about(tmp_path):
    _, report = evaluate(two_systems(tmp_path, utterances=5), Settings(draws=20))
    assert "only 5 in the test set: intervals and p say little" in report.notes


def test_no_interval_from_a_handful_of_utterances(tmp_path):
    _, report = evaluate(two_systems(tmp_path, utterances=4), Settings(draws=20))
    found = report.comparisons[0].figures["b_wer"]
    assert found["difference"] == pytest.approx(-50.0) and found["low"] is None and found["p"] is None


def test_rankings_are_scored_where_there_are_some(tmp_path, capsys):
    prompt = "Select keywords that may appear in the speech from the following keywords list: "
    content = f"<audio>{prompt}<|startofcontext|>emily, bob, tim, ann, zoe<|endofcontext|>"
    row = {"messages": [{"role": "user", "content": content}], "labels": "emily, Zoe"}
    ranked = {"zoe": 0.1, "bob": 0.9, "Emily": 0.4, "tim": 0.3}
    rows = [
        {**row, "id": "u1", "response": "bob", "keyword_probabilities": ranked},
        {**row, "id": "u2", "response": "none", "keyword_probabilities": {}},
    ]
    path = tmp_path / "picks.jsonl"
    path.write_text("".join(json.dumps(one) + "\n" for one in rows), encoding="utf-8")
    loaded = load_selections({"spot": path}, None, KeywordRules())
    assert score_selections(loaded.selections["spot"])["recall_at"] == {3: 25.0, 5: 50.0, 10: 50.0, 20: 50.0}
    assert sap2("score-keywords", "--input_file", path) == 0
    assert "recall at 3 %" in capsys.readouterr().out
    plain = [{name: value for name, value in one.items() if name != "keyword_probabilities"} for one in rows]
    path.write_text("".join(json.dumps(one) + "\n" for one in plain), encoding="utf-8")
    assert sap2("score-keywords", "--input_file", path) == 0
    assert "recall at" not in capsys.readouterr().out


def test_words_that_a_system_was_not_sure_of(tmp_path):
    def result(key, response, words):
        return json.dumps({"id": key, "response": response, "labels": "now hear wozniak", "words": words}) + "\n"

    words = [{"word": word, "probability": p} for word, p in (("now", 0.9), ("hear", None), ("was", 0.2))]
    lines = [
        result("u0", "now hear was", words),
        result("u1", "now hear", words),
        result("u2", "now hear was", "no list"),
    ]
    (tmp_path / "a.jsonl").write_text("".join(lines))
    scores, report = evaluate(Sources({"a": str(tmp_path / "a.jsonl")}), Settings(draws=20))
    flags = [utterance[6][0][6] for utterance in page_data(scores, report)["utterances"]]
    assert flags == ["001", None, None], "words that are not those of the reply are left alone"


def test_stage_one_s_own_label_counts_where_the_row_keeps_the_transcript(tmp_path):
    turn = {"role": "user", "content": "<audio>Select.<|startofcontext|>emily, wozniak<|endofcontext|>"}
    row = {"id": "u", "response": "wozniak", "labels": "hi wozniak", "prune_labels": "wozniak", "messages": [turn]}
    (tmp_path / "p.jsonl").write_text(json.dumps(row) + "\n")
    loaded = load_selections({"p": tmp_path / "p.jsonl"}, None, KeywordRules())
    assert score_selections(loaded.selections["p"])["micro"]["recall"] == 100
