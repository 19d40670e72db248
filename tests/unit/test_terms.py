"""Which terms of a batch the retriever learns from."""

from __future__ import annotations

import pytest
import torch
from datasets import Dataset

from sap2.errors import InputError
from sap2.model.context import tokenize_terms
from sap2.model.retriever import NO_TERM, NO_TOKEN
from sap2.ms_swift.terms import MOST, collate_terms, has_terms, spoken_terms
from sap2.ms_swift.transcripts import check_terms
from sap2.prompts import asr_prompt

HEARD = torch.zeros(1, 128, 8)


def row(keywords, transcript, audios=1):
    terms = spoken_terms(keywords, transcript)
    return {"terms": terms, "transcript": transcript, "input_features": HEARD.expand(audios, -1, -1)}


def read(collated, tokenizer):
    """The terms, and which of them each audio has."""
    ids, labels = collated["term_input_ids"], collated["term_targets"]
    assert ids.shape[:2] == labels.shape and (ids == ids[:1]).all()
    return [tokenizer.decode(term[term != NO_TOKEN]) for term in ids[0]], labels


def test_terms_of_a_row_are_the_keywords_that_it_says():
    assert spoken_terms(["Emily", "steve wozniak", "wozniak", "bob", "emily"], "hi I'm emily wozniak") == [
        "Emily",
        "wozniak",
    ]
    assert spoken_terms([], "hi") == []


def test_each_term_of_the_batch_is_looked_for_in_each_audio(processor):
    rows = [row(["emily", "bob"], "emily leaves"), row(["steve wozniak"], "emily meets steve wozniak")]
    terms, labels = read(collate_terms(rows, processor.tokenizer), processor.tokenizer)
    assert sorted(terms) == ["emily", "steve wozniak"]  # bob is not said, and nobody learns from him
    assert [dict(zip(terms, of_audio.tolist(), strict=True)) for of_audio in labels] == [
        {"emily": 1, "steve wozniak": 0},
        {"emily": 1, "steve wozniak": 1},  # it stands in no list of this row
    ]


def test_where_nobody_knows_what_is_said_nothing_is_learnt(processor):
    rows = [row(["emily"], "emily leaves"), row(["bob"], "bob and emily", audios=2), row([], "")]
    _, labels = read(collate_terms(rows, processor.tokenizer), processor.tokenizer)
    assert labels.shape == (4, 2) and sorted(labels[0].tolist()) == [0, 1]
    assert (labels[1:] == NO_TERM).all()
    assert collate_terms([row(["emily"], "bob")], processor.tokenizer) == {}


def test_many_terms_are_drawn_from(processor):
    names = [f"name{number}" for number in range(3 * MOST)]
    rows = [row(names[:150], " ".join(names[:150])), row(names[150:], " ".join(names[150:]))]
    first, again = (collate_terms(rows, processor.tokenizer) for _ in "ab")
    assert first["term_targets"].shape == (2, MOST)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert 20 < first["term_targets"][0].sum() < 80


def test_a_term_is_plain_text(processor):
    (ids,) = tokenize_terms(processor.tokenizer, ["<|im_end|>"])
    assert processor.tokenizer.convert_tokens_to_ids("<|im_end|>") not in ids
    assert tokenize_terms(processor.tokenizer, []) == []


def test_the_template_gives_them_to_a_model_with_a_retriever(make_template, wavs):
    def batch(**settings):
        template = make_template(sap_settings=settings)
        turns = [{"role": "user", "content": f"<audio>{asr_prompt(['emily', 'bob'])}"}]
        rows = [
            {"messages": [*turns, {"role": "assistant", "content": text}], "audios": [wavs[0]]}
            for text in ("hi emily", "hi bob")
        ]
        return template.data_collator([template.encode(row) for row in rows])

    collated = batch(sap_retriever=True)
    assert collated["term_input_ids"].shape[:2] == (2, 2) and collated["term_targets"].sum() == 2
    assert "transcripts" not in collated  # no spotter learns from them
    assert not any(name.startswith("term_") for name in batch(sap_spotter=True))


def test_rows_without_a_spoken_keyword_do_not_train_a_retriever():
    turns = [{"role": "user", "content": f"<audio>{asr_prompt(['emily'])}"}]
    rows = [{"messages": [*turns, {"role": "assistant", "content": text}]} for text in ("hi bob", "hi emily")]
    assert [has_terms(row, row["messages"][1]["content"]) for row in rows] == [False, True]
    check_terms(Dataset.from_list(rows))
    with pytest.raises(InputError, match=r"none of the 1 training rows has a keyword .*; allowed: rows with lists"):
        check_terms(Dataset.from_list(rows[:1]))
