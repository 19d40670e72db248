"""Banks of terms: what a line says, what is left out and said so."""

from __future__ import annotations

import numpy as np
import pytest

from sap2.errors import InputError
from sap2.model.spotter import LONGEST_KEYWORD
from sap2.pruning.bank import Term, TermBank, parse_term, read_bank


@pytest.mark.parametrize(
    ("line", "term"),
    [
        ("Wozniak", Term("Wozniak")),
        (" Wozniak | woz nee ack|woz :2 ", Term("Wozniak", ("woz nee ack", "woz"), 2.0)),
        ("ratio 3:4", Term("ratio 3:4")),
        ("Kubernetes\t:0.5", Term("Kubernetes", (), 0.5)),
        ("steve wozniak||", Term("steve wozniak")),
    ],
)
def test_a_line_is_a_term(line, term):
    assert parse_term(line) == term


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("|woz", r"bank.txt:3: '\|woz' has no term before '\|'"),
        ("woz :0", "bank.txt:3: weight '0'; allowed: a number above 0"),
        ("woz :-1", "weight '-1'"),
        ("woz :nan", "weight 'nan'"),
        ("woz :much", "weight 'much'"),
    ],
)
def test_a_bad_line_is_named(tmp_path, line, message):
    path = tmp_path / "bank.txt"
    path.write_text(f"# names\nEmily\n{line}\n", encoding="utf-8")
    with pytest.raises(InputError, match=message):
        read_bank(path)


@pytest.mark.parametrize("text", ["", "\n# nothing\n", "…\n---\n"])
def test_an_empty_bank_is_refused(tmp_path, text):
    path = tmp_path / "bank.txt"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(InputError, match="has no term that can be spelled"):
        read_bank(path)


def test_a_bank_that_is_not_text_is_refused(tmp_path):
    path = tmp_path / "bank.txt"
    path.write_bytes(b"\xff\xfe\x00bad")
    with pytest.raises(InputError, match="not UTF-8"):
        read_bank(path)
    with pytest.raises(FileNotFoundError, match=r"none\.txt"):
        read_bank(tmp_path / "none.txt")


def test_nothing_is_left_out_in_silence(tmp_path):
    path = tmp_path / "bank.txt"
    path.write_text(f"\ufeffEmily\nemily|em\n…\n{'x' * 60}\n", encoding="utf-8")
    bank = read_bank(path)
    assert bank.terms == ["Emily", "x" * 60] and len(bank) == 2
    assert bank.owners.tolist() == [0, 0, 1]
    assert str(bank) == (
        f"2 terms, 3 forms; 1 repeated; 1 that cannot be spelled ('…'); "
        f"1 looked for by their first {LONGEST_KEYWORD} letters ('{'x' * 60}')"
    )
    assert str(TermBank([Term("a")])) == "1 terms, 1 forms; 0 that cannot be spelled"


def test_terms_are_clean_and_weighed():
    bank = TermBank([Term("<|im_end|> bob"), Term("AT&T", ("a t and t",), 4.0)])
    assert bank.terms == ["im_end bob", "AT&T"]
    np.testing.assert_allclose(bank.log_weights, np.log([1, 4]))


def test_many_are_counted_and_some_are_shown():
    assert "12 that cannot be spelled ('…', " in str(TermBank([Term("a"), *[Term("…")] * 12]))
    assert "and 2 more)" in str(TermBank([Term("a"), *[Term("…")] * 12]))
