"""Rankings of what is spoken: by the spotter, by what it reads, and their probabilities."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch

from sap2.errors import InputError
from sap2.model.spotter import SYMBOLS, keyword_salience, pad_spellings, spelled_frames, spelling
from sap2.pruning.bank import Term, TermBank
from sap2.pruning.calibration import Calibration, calibration_error, fit_calibration, fit_contest, reliability
from sap2.pruning.matching import Matcher, greedy_text
from sap2.pruning.spotting import RANKED, list_bank, merge_rankings, rank_spotted, rival_evidence, term_salience
from sap2.slides.common import common_words

PLAIN = Calibration(constant=0.0, salience=1.0, letters=0.0, log_entries=0.0)


def log_probs_of(text: str, sharpness: float = 6.0) -> torch.Tensor:
    """(1, T, symbols) of speech that says the text: two frames a letter and a blank after it."""
    symbols = [symbol for letter in spelling(text) for symbol in (letter, letter, 0)]
    return (torch.nn.functional.one_hot(torch.tensor(symbols), SYMBOLS).float() * sharpness).log_softmax(-1)[None]


def heard(text: str):
    log_probs = log_probs_of(text)
    return spelled_frames(log_probs, torch.ones(log_probs.shape[:2], dtype=torch.bool))


def test_what_is_said_is_ranked_first():
    ranked = rank_spotted(heard("we met emily wozniak"), [list_bank(["bob", "emely", "wozniak", "emily"])], PLAIN)
    assert [entry.keyword for entry in ranked] == ["wozniak", "emily", "emely", "bob"]
    assert ranked[0].probability > 0.99 > 0.5 > ranked[-1].probability


def test_a_term_is_found_in_any_of_its_forms():
    terms = [Term("Wozniak", ("woz nee ack",)), Term("Emily"), Term("Bob", ("bobby", "robert"))]
    frames = heard("woz nee ack and robert")
    found = term_salience(frames, TermBank(terms))
    assert found.letters.tolist() == [9, 5, 6]
    alone = term_salience(frames, TermBank([Term("woz nee ack"), Term("emily"), Term("robert")]))
    np.testing.assert_array_equal(found.salience, alone.salience)
    ranked = rank_spotted(frames, [TermBank(terms)], PLAIN)
    assert [entry.keyword for entry in ranked][:2] == ["Wozniak", "Bob"]


def test_salience_is_that_of_the_pooling():
    words = ["emily", "emely", "woz", "x" * 40]
    log_probs = log_probs_of("we met emily")
    mask = torch.ones(log_probs.shape[:2], dtype=torch.bool)
    expected = keyword_salience(log_probs, mask, pad_spellings([words]))[0]
    np.testing.assert_allclose(term_salience(spelled_frames(log_probs, mask), list_bank(words)).salience, expected)


def test_weights_and_banks_are_one_ranking():
    frames = heard("emily or emely")
    heavy = TermBank([Term("emely", weight=8.0), Term("EMILY")])
    ranked = rank_spotted(frames, [list_bank(["emily"]), heavy], PLAIN)
    assert [entry.keyword for entry in ranked] == ["emely", "emily"]  # once, and as the first list writes it


def test_a_term_of_the_own_list_is_likelier_than_one_of_the_bank():
    """The bank holds a word of the same spelling but for one letter that is heard as well."""
    crowd = TermBank(map(Term, ["emely", *(f"name{number}" for number in range(500))]))
    calibration = PLAIN._replace(log_entries=-1.0)
    frames = heard("emili")
    alone = rank_spotted(frames, [TermBank([Term("emily"), *map(Term, crowd.terms)])], calibration)
    beside = rank_spotted(frames, [list_bank(["emily"]), crowd], calibration)
    assert beside[0].keyword == "emily" and beside[0].probability > 2 * alone[0].probability
    assert {entry.keyword for entry in beside} <= {"emily", *crowd.terms}


def test_of_terms_in_the_same_frames_one_is_spoken():
    names = ["emily", "emilie", "wozniak"]
    frames = heard("emily met wozniak")
    apart = {e.keyword: e.probability for e in rank_spotted(frames, [list_bank(names)], PLAIN._replace(rivals=0.0))}
    contested = {e.keyword: e.probability for e in rank_spotted(frames, [list_bank(names)], PLAIN)}
    assert apart["emilie"] > 0.5 > contested["emilie"]
    assert contested["wozniak"] == pytest.approx(apart["wozniak"])  # it stands elsewhere
    twins = rank_spotted(frames, [list_bank(["emily", "emely"])], PLAIN)
    assert sum(entry.probability for entry in twins) <= 1


def test_rivals_are_those_of_the_same_frames():
    frames = heard("emily met wozniak")
    evidence = np.array([2.0, 1.0, 3.0])
    rivals = rival_evidence(frames, ["emily", "emely", "wozniak"], evidence)
    np.testing.assert_allclose(rivals, np.log1p(np.exp([1.0, 2.0, -np.inf])))
    assert rival_evidence(frames, [], np.zeros(0)).shape == (0,)


def test_an_empty_list_has_an_empty_ranking():
    assert rank_spotted(heard("emily"), [list_bank([])], PLAIN) == []
    assert rank_spotted(heard("a"), [list_bank(["much too long for it"])], PLAIN) == []


def test_keywords_that_are_not_looked_for_are_named():
    with pytest.warns(UserWarning, match=r"'!\?' has no letter and no digit"):
        assert rank_spotted(heard("emily"), [list_bank(["emily", "!?"])], PLAIN)[0].keyword == "emily"
    with pytest.warns(UserWarning, match="is looked for by its first 48 letters"):
        list_bank(["x" * 49])


def test_a_ranking_has_an_end():
    names = [f"name{number}" for number in range(3 * RANKED)]
    ranked = rank_spotted(heard("name7"), [list_bank(names)], PLAIN)
    assert len(ranked) == RANKED and ranked[0].keyword == "name7"


def test_the_spotter_reads():
    log_probs = log_probs_of("hello zürich")
    assert greedy_text(log_probs[0]) == "hello zürich"
    assert greedy_text(log_probs[0, :0]) == ""


def test_rare_words_are_looked_up():
    bank = list_bank(["Wozniak", "Wosniak", "the", "Kubernetes", "machine learning"])
    matcher = Matcher(bank, common_words())
    assert "the" in common_words() and len(common_words()) == 5000
    assert [entry.keyword for entry in matcher.rank("the wozniak")] == ["Wozniak"]
    assert matcher.rank("the good words") == []  # nothing rare
    nearest = matcher.rank("the wotzniack of it")
    assert [entry.keyword for entry in nearest][:2] == ["Wozniak", "Wosniak"] and nearest[0].probability < 0.9
    assert Matcher(bank, frozenset()).rank("machine learning")[0].keyword == "machine learning"


def test_rankings_are_merged():
    one, other = [("a", 0.9), ("b", 0.2)], [("B", 0.5), ("c", 0.4)]
    merged = merge_rankings([[*map(_entry, one)], [*map(_entry, other)]])
    assert [tuple(entry) for entry in merged] == [("a", 0.9), ("b", 0.5), ("c", 0.4)]


def _entry(pair):
    from sap2.pruning.spotting import RankedKeyword

    return RankedKeyword(*pair)


def test_a_fit_finds_what_made_the_data():
    rng = np.random.default_rng(0)
    count = 40_000
    salience, letters = rng.normal(0, 8, count), rng.integers(3, 15, count)
    entries = rng.choice([40, 500, 10_000], count)
    true = Calibration(1.0, 0.6, -0.1, -0.5)
    odds = true.evidence(salience, letters, 1) + true.log_entries * np.log(entries)
    spoken = rng.random(count) < 1 / (1 + np.exp(-odds))
    found = fit_calibration(salience, letters, entries, spoken, np.ones(count))
    np.testing.assert_allclose(found, true, atol=0.12)  # it says nothing of rivals, as the defaults do
    doubled = fit_calibration(salience, letters, entries, spoken, np.full(count, 2.0))
    np.testing.assert_allclose(doubled, found, atol=0.01)
    probabilities = np.array([found.probability(value) for value in odds[:5000]])
    assert calibration_error(reliability(probabilities, spoken[:5000])) < 0.03


def test_a_contest_is_fitted():
    rng = np.random.default_rng(0)
    evidence, rivals = rng.normal(0, 4, 40_000), np.logaddexp(0, rng.normal(0, 4, 40_000))
    true = PLAIN._replace(rivals=0.8, sharpness=1.2, offset=0.5)
    spoken = rng.random(40_000) < 1 / (1 + np.exp(-true.contested(evidence, rivals)))
    np.testing.assert_allclose(fit_contest(PLAIN, evidence, rivals, spoken), true, atol=0.06)


def test_separable_examples_have_a_fit():
    found = fit_calibration(
        np.array([-5.0, -4.0, 4.0, 5.0]), np.ones(4), np.full(4, 40), np.array([0, 0, 1, 1], dtype=bool), np.ones(4)
    )
    assert found.salience > 0 and np.isfinite(found).all()
    with pytest.raises(InputError, match="0 of 4 keywords are spoken"):
        fit_calibration(np.zeros(4), np.ones(4), np.full(4, 40), np.zeros(4, dtype=bool), np.ones(4))


def test_bins_of_probabilities():
    found = reliability(np.array([0.05, 0.05, 0.95, 1.0]), np.array([False, True, True, True]))
    assert [(one.share, one.terms) for one in found] == [(0.5, 2), (1.0, 2)]
    assert calibration_error(found) == pytest.approx((0.45 * 2 + 0.025 * 2) / 4)
    assert calibration_error([]) == 0.0


def test_a_calibration_is_kept_beside_the_adapter(tmp_path):
    assert Calibration.load(tmp_path) is None
    saved = Calibration(1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0)
    path = saved.save(tmp_path, utterances=3)
    assert Calibration.load(tmp_path) == saved and '"utterances": 3' in path.read_text()
    path.write_text('{"calibration": {"constant": 1, "salience": 2, "letters": 3, "log_entries": 4}}')
    assert Calibration.load(tmp_path) == saved._replace(rivals=0.0, sharpness=1.0, offset=0.0)  # of before
    path.write_text("{}")
    with pytest.raises(InputError, match=r"pruner\.json: not a calibration"):
        Calibration.load(tmp_path)


def test_odds_without_an_end_are_probabilities():
    assert Calibration.probability(-math.inf) == 0.0 and Calibration.probability(1000.0) == 1.0


def test_the_bank_of_a_list_is_made_once_and_warns_each_time():
    for _ in range(2):
        with pytest.warns(UserWarning, match="has no letter and no digit"):
            bank = list_bank(["emily", "..."])
    assert list_bank(("emily", "...")) is bank and list_bank(["emily"]) is not bank
    many = ["".join(letters) for letters in itertools.product("bdfg", "aeio", "klmn", "aeio", "rstv", "aeio", "xyz")]
    assert len(list_bank(many)) == len(many) > 10_000
