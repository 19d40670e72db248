"""Contexts become placeholders; slide text never becomes a token."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sap2.errors import InputError
from sap2.model.context import Context, add_sap_tokens, expand_contexts, tokenize_context
from sap2.model.processing import pad_contexts
from sap2.prompts import (
    AUDIO_TAG,
    AUDIO_TOKEN,
    CONTEXT_TOKEN,
    END_OF_CONTEXT,
    SAP_TOKENS,
    START_OF_CONTEXT,
    format_context,
    parse_keywords,
)
from sap2.text import clean_keywords
from sap2.tiny.checkpoint import SPECIAL_TOKENS, VOCABULARY_ROWS, build_tokenizer

NOTHING = Context([], [], [])
S, E, C, A = START_OF_CONTEXT, END_OF_CONTEXT, CONTEXT_TOKEN, AUDIO_TAG


@pytest.fixture(scope="module")
def tokenizer():
    tokenizer = build_tokenizer()
    add_sap_tokens(tokenizer, VOCABULARY_ROWS)
    return tokenizer


def expand(tokenizer, *texts, window=2, mark=A):
    return expand_contexts(texts, mark, tokenizer, window)


def ids_of(tokenizer, text):
    return tokenizer(text, add_special_tokens=False)["input_ids"]


@pytest.mark.parametrize("window", [1, 2, 3, 7, 100])
def test_a_context_becomes_its_pooled_length(tokenizer, window):
    texts, contexts = expand(tokenizer, f"{A}before {S}emily{E} after", window=window)
    assert [c.ids for c in contexts] == [ids_of(tokenizer, "emily")]
    assert texts == [f"{A}before {S}{C * -(-5 // window)}{E} after"]


def test_a_context_belongs_to_the_last_audio_before_it(tokenizer):
    texts, contexts = expand(
        tokenizer, f"{A}{A}x{S}ab{E}", "no audio in this turn", f"{A}{S}{E}{A}y{A}{S}cde{E}z", "end"
    )
    assert texts == [f"{A}{A}x{S}{C}{E}", "no audio in this turn", f"{A}{S}{E}{A}y{A}{S}{C}{C}{E}z", "end"]
    assert [c.ids for c in contexts] == [[], ids_of(tokenizer, "ab"), [], [], ids_of(tokenizer, "cde")]


def test_a_context_may_follow_its_audio_in_a_later_turn(tokenizer):
    assert expand(tokenizer, A, f"{S}ab{E}").contexts[0].ids == ids_of(tokenizer, "ab")


def test_no_context_changes_nothing(tokenizer):
    assert expand(tokenizer, f"{A}hello", "again") == ([f"{A}hello", "again"], [NOTHING])
    assert expand(tokenizer) == ([], [])
    assert expand(tokenizer, "text only") == (["text only"], [])


def test_an_empty_context_has_no_placeholder(tokenizer):
    assert expand(tokenizer, f"{A}{S}{E}") == ([f"{A}{S}{E}"], [NOTHING])


@pytest.mark.parametrize("text", [f"{A}{S}none{E}", f"{A}{S} {E}"])
def test_any_other_context_has_one(tokenizer, text):
    (expanded,), ((ids, _, _),) = expand(tokenizer, text)
    assert len(ids) > 0 and expanded.count(C) == -(-len(ids) // 2)


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        ([f"{A}{S}a, b"], rf"<\|startofcontext\|> at character {len(A)} is never closed by <\|endofcontext\|>"),
        ([f"{A}a, b{E}"], rf"<\|endofcontext\|> at character {len(A) + 4} without <\|startofcontext\|> before it"),
        ([f"{A}{E}a{S}"], r"<\|endofcontext\|> at character 7 without"),
        ([f"{A}{S}a{S}b{E}"], rf"<\|startofcontext\|> at character {len(A + S) + 1} inside the context"),
        ([f"{A}{S}a{S}b{E}{E}"], r"inside the context that opened at 7"),
        ([f"{A}{S}a{E}{E}"], r"<\|endofcontext\|> .* without"),
        ([f"{A}{S}a", f"b{E}"], r"never closed"),
        ([f"{A}{C}"], r"<\|context\|> is the placeholder of compressed context and must not be in a row"),
        ([f"{A}{S}a{C}{E}"], r"<\|context\|> is the placeholder"),
        ([f"{S}emily{E}{A}"], r"the context 'emily' has no audio before it; allowed: audio first"),
        ([f"{S}emily{E}"], r"the context 'emily' has no audio before it"),
        ([f"{A}{S}a{E}{S}b{E}"], r"audio 1 has two contexts; allowed: one context for each audio"),
        ([f"{A}{A}{S}a{E}", f"{S}b{E}"], r"audio 2 has two contexts"),
        ([f"{A}{S}{E}{S}{E}"], r"audio 1 has two contexts"),
    ],
)
def test_misplaced_delimiters_are_refused(tokenizer, texts, message):
    with pytest.raises(InputError, match=message) as caught:
        expand(tokenizer, *texts)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("token", [*SPECIAL_TOKENS, "<audio>", "</audio>", "<image>", "<video>", "<|anything|>"])
def test_special_tokens_among_the_keywords_are_refused(tokenizer, token):
    with pytest.raises(InputError, match="the keywords contain") as caught:
        expand(tokenizer, f"{A}{S}emily, {token}, wozniak{E}")
    assert repr(token) in str(caught.value)
    assert "clean_keywords" in str(caught.value) and "\n" not in str(caught.value)


def test_plain_text_about_markup_is_text(tokenizer):
    body = "a < b, c|d, <b>, im_end"
    ((ids, _, _),) = expand(tokenizer, f"{A}{S}{body}{E}").contexts
    assert tokenizer.decode(ids) == body


def test_a_long_context_is_named_by_its_beginning(tokenizer):
    with pytest.raises(InputError, match=r"'emily, emily, .*…' has no audio") as caught:
        expand(tokenizer, f"{S}{', '.join(['emily'] * 1000)}{E}")
    assert len(str(caught.value)) < 150


def test_the_processor_marks_audio_with_its_own_token(tokenizer):
    texts, contexts = expand(tokenizer, f"{AUDIO_TOKEN}{S}ab{E} {A}", mark=AUDIO_TOKEN)
    assert texts == [f"{AUDIO_TOKEN}{S}{C}{E} {A}"] and len(contexts) == 1


text = st.text(st.one_of(st.characters(), st.sampled_from(list("<|>＜｜＞\u200b\u00ad ,")))) | st.lists(
    st.sampled_from(
        [*SPECIAL_TOKENS, *SAP_TOKENS, "<audio>", "<|", "|>", "＜｜im_end｜＞", "im_end", "a", "\u200b", "<"]
    )
).map("".join)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(st.lists(text, max_size=4))
def test_cleaned_keywords_are_never_a_token(tokenizer, untrusted):
    keywords = clean_keywords(untrusted)
    (expanded,), ((ids, _, _),) = expand(tokenizer, f"{A}{format_context(keywords)}")
    assert set(ids).isdisjoint(tokenizer.all_special_ids)
    assert expanded == f"{A}{S}{C * -(-len(ids) // 2)}{E}"
    assert tokenizer.decode(ids) == format_context(keywords).removeprefix(S).removesuffix(E)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(text)
def test_uncleaned_text_is_refused_or_plain(tokenizer, untrusted):
    try:
        expanded = expand(tokenizer, f"{A}{S}{untrusted}{E}")
    except InputError:
        return
    assert set(expanded.contexts[0].ids).isdisjoint(tokenizer.all_special_ids)
    assert (expanded.texts[0].count(S), expanded.texts[0].count(E), expanded.texts[0].count(A)) == (1, 1, 1)


def test_keywords_are_tokenized_without_special_tokens(tokenizer):
    """Even a special token that no rule knows would come out as plain characters."""
    tokenizer.add_special_tokens({"extra_special_tokens": ["§secret§"]}, replace_extra_special_tokens=False)
    assert len(tokenize_context(tokenizer, "§secret§").ids) > 1


def test_tokens_are_added_once_and_keep_the_others():
    tokenizer = build_tokenizer()
    before = len(tokenizer)
    context_id = add_sap_tokens(tokenizer, VOCABULARY_ROWS)
    assert add_sap_tokens(tokenizer, VOCABULARY_ROWS) == context_id == tokenizer.convert_tokens_to_ids(CONTEXT_TOKEN)
    assert len(tokenizer) == before + 3
    assert set(SPECIAL_TOKENS) | set(SAP_TOKENS) <= set(tokenizer.all_special_tokens)
    for token in (*SPECIAL_TOKENS, *SAP_TOKENS):
        assert ids_of(tokenizer, f"a{token}b")[1:-1] == [tokenizer.convert_tokens_to_ids(token)]


@pytest.mark.parametrize("spare", [0, 1, 2])
def test_tokens_that_do_not_fit_the_embedding_are_refused(spare):
    tokenizer = build_tokenizer()
    rows = len(tokenizer) + spare
    with pytest.raises(InputError, match=rf"need ids up to {len(tokenizer) + 2}, .* has {rows} rows; .* at least"):
        add_sap_tokens(tokenizer, rows)


def test_tokens_that_just_fit_are_taken():
    tokenizer = build_tokenizer()
    assert add_sap_tokens(tokenizer, len(tokenizer) + 3) == len(tokenizer) - 1


@pytest.mark.parametrize(
    "body, keywords, numbers",
    [
        ("ab, c", ["ab", " c"], [1, 1, 1, 2, 2]),
        ("ab,c,", ["ab", "c", ""], [1, 1, 1, 2, 2]),
        ("ab cd", ["ab", "cd"], [1, 1, 2, 2, 2]),
        (" ab", ["ab"], [1, 1, 1]),
        ("é, x", ["é", " x"], [1, 1, 1, 2, 2]),  # two bytes
        ("", [], []),
    ],
)
def test_each_token_belongs_to_a_keyword(tokenizer, body, keywords, numbers):
    context = tokenize_context(tokenizer, body)
    assert context.keywords == keywords
    assert context.numbers == numbers and len(context.ids) == len(numbers)


@settings(deadline=None)
@given(st.lists(st.text(max_size=6), max_size=6))
def test_keyword_numbers_are_in_order_and_have_a_keyword(texts):
    tokenizer = build_tokenizer()
    context = tokenize_context(tokenizer, format_context(clean_keywords(texts))[len(S) : -len(E)])
    assert context.numbers == sorted(context.numbers) and len(context.numbers) == len(context.ids)
    assert not context.numbers or 1 <= context.numbers[0] <= context.numbers[-1] <= len(context.keywords)


# --- separators


@pytest.mark.parametrize("mark", list(",，、;；،؛\t\n"))
def test_lists_are_divided_at_the_separators_of_every_script(tokenizer, mark):
    context = tokenize_context(tokenizer, f"steve wozniak{mark} emily{mark}bob")
    assert [keyword.strip() for keyword in context.keywords] == ["steve wozniak", "emily", "bob"]
    assert set(context.numbers) == {1, 2, 3}
    assert clean_keywords([f"a{mark}b"]) == ["a b"]


@pytest.mark.parametrize(
    ("body", "closed"),
    [
        ("emily, bob", "emily, bob,"),
        ("emily, bob, ", "emily, bob, "),
        ("北京、东京", "北京、东京、"),
        ("emily", "emily,"),
        ("emily bob", " emily bob"),
        (" emily bob", " emily bob"),
        ("", ""),
        (" ", " "),
    ],
)
def test_a_closed_list_may_be_put_in_another_order(tokenizer, body, closed):
    context = tokenize_context(tokenizer, body, closed=True)
    assert context.ids == tokenize_context(tokenizer, closed).ids
    parts: dict[int, list[int]] = {}
    for token, number in zip(context.ids, context.numbers, strict=True):
        parts.setdefault(number, []).append(token)
    moved = "".join(tokenizer.decode(part) for part in reversed(parts.values()))
    assert sorted(parse_keywords(moved)) == sorted(parse_keywords(body))


def test_a_repeated_keyword_is_looked_for_once(tokenizer):
    (context,) = expand(tokenizer, f"{A}{S}emily, bob, emily, Emily,bob{E}").contexts
    spellings = pad_contexts([context], 0)["context_spellings"]
    assert (spellings[0] > 0).any(-1).tolist() == [True, True, False, True, False]


def test_a_list_that_audios_share_is_padded_as_lists_of_their_own(tokenizer):
    shared, other = (tokenize_context(tokenizer, body) for body in ("emily, bob, emily", "wozniak"))
    copies = [tokenize_context(tokenizer, "emily, bob, emily"), other, tokenize_context(tokenizer, "emily, bob, emily")]
    expected = pad_contexts(copies, 7)
    assert {name: rows.tolist() for name, rows in pad_contexts([shared, other, shared], 7).items()} == {
        name: rows.tolist() for name, rows in expected.items()
    }
    assert expected["context_input_ids"].shape == (3, len(shared.ids))
