"""The spotter and the budget of ``sap_pooling`` salience."""

from __future__ import annotations

import math
import unicodedata

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from sap2.lengths import pooled_length
from sap2.model.pooling import SpeechDrivenPooling
from sap2.model.pooling.salience import KEPT, mean_at, spend_budget
from sap2.model.search import STEP
from sap2.model.spotter import (
    LETTER_WORTH,
    LONGEST_KEYWORD,
    MISSING_SPACE,
    REACH,
    SPACE,
    SYMBOLS,
    KeywordSpotter,
    keyword_salience,
    keyword_symbols,
    pad_spellings,
    pad_transcripts,
    spelled_frames,
    spelling,
    spotting_loss,
)


def frames_of(text: str, sharpness: float = 8.0) -> torch.Tensor:
    """(1, T, symbols) log probabilities of speech that says the text: two frames a letter and a blank after it."""
    symbols = [symbol for letter in spelling(text) for symbol in (letter, letter, 0)]
    return (nn.functional.one_hot(torch.tensor(symbols), SYMBOLS).float() * sharpness).log_softmax(-1)[None]


def salience_of(log_probs: torch.Tensor, *keywords: str, frames: int | None = None) -> list[float]:
    mask = torch.zeros(log_probs.shape[:2], dtype=torch.bool)
    mask[:, : frames or log_probs.shape[1]] = True
    return keyword_salience(log_probs, mask, pad_spellings([keywords]))[0].tolist()


def slow_salience(log_probs, symbols):
    """The best path written as a recursion over all of them."""
    relative = (spelled_frames(log_probs, torch.ones(log_probs.shape[:2], dtype=torch.bool)).scores[0] * STEP).tolist()
    states = [symbol for letter in symbols for symbol in (letter, 0)][:-1]
    best = -math.inf

    def walk(frame, state, total):
        nonlocal best
        total += relative[frame][states[state]]
        if state == len(states) - 1:
            best = max(best, total)
        if frame + 1 == len(relative):
            return
        for step in (0, 1, 2):
            reached = state + step
            if reached < len(states) and (step < 2 or (states[reached] and states[reached] != states[state])):
                walk(frame + 1, reached, total)

    for start in range(len(relative)):
        walk(start, 0, 0.0)
    return best + LETTER_WORTH * sum(symbol != SPACE for symbol in symbols)


def worth(keyword: str) -> float:
    """Salience of a keyword that is said without an error."""
    return LETTER_WORTH * len(keyword.replace(" ", ""))


def test_what_is_said_is_salient():
    emily, emely, wozniak, met, lime = salience_of(
        frames_of("we met emily today"), "emily", "emely", "wozniak", "met emily", "lime"
    )
    assert emily == pytest.approx(worth("emily"), abs=1e-2) and met == pytest.approx(worth("met emily"), abs=1e-2)
    assert emily > emely > wozniak
    assert lime < 0  # the same letters in another order


def test_a_part_of_a_word_is_worth_less_than_a_word():
    said, within, after = salience_of(frames_of("mel was in melvin"), "mel", "vin", "was i")
    assert said == pytest.approx(worth("mel"), abs=1e-2)
    assert within == pytest.approx(worth("vin") + MISSING_SPACE, abs=1e-2)
    assert after == pytest.approx(worth("was i") + MISSING_SPACE, abs=1e-2)
    (first, last), (chinese, part) = (
        salience_of(frames_of("emily met bob"), "emily", "bob"),
        salience_of(frames_of("我们好"), "我们", "们"),
    )
    assert (first, last) == pytest.approx((worth("emily"), worth("bob")), abs=1e-2)  # without a space around
    assert (chinese, part) == pytest.approx((LETTER_WORTH * 6, LETTER_WORTH * 3), abs=1e-2)  # which it does not have


def test_entries_of_one_or_two_letters_do_not_win():
    """They can be found in any speech; a name with an error in it still comes first."""
    short = ["a", "e", "i", "c", "or", "c++"]
    salience = salience_of(frames_of("we met emily today", sharpness=4.0), "emely", "today", *short)
    assert min(salience[:2]) > max(salience[2:])


def test_doubled_letters_need_a_blank_between_them():
    log_probs = frames_of("lol")
    assert salience_of(log_probs, "ll")[0] < salience_of(log_probs, "lol")[0]
    assert salience_of(frames_of("ll"), "ll")[0] == pytest.approx(worth("ll"), abs=1e-2)


def test_salience_equals_all_paths():
    torch.manual_seed(0)
    log_probs = torch.randn(1, 7, SYMBOLS).mul(2).log_softmax(-1)
    for symbols in ([5], [5, 5], [9, 4, 9], [1, 2, 3, 3]):
        table = torch.tensor([[symbols]])
        found = keyword_salience(log_probs, torch.ones(1, 7, dtype=torch.bool), table)
        assert found.item() == pytest.approx(slow_salience(log_probs, symbols), abs=1e-5)


def test_frames_of_padding_are_not_heard():
    said = frames_of("emily")
    both = torch.cat([said, frames_of("wozniak")], 1)
    assert salience_of(both, "wozniak", frames=said.shape[1])[0] < 0
    assert salience_of(both, "emily", frames=said.shape[1]) == salience_of(said, "emily")


def test_what_cannot_be_heard_comes_last():
    salience = salience_of(frames_of("a"), "", "...", "far too long for three frames", "a")
    assert salience[:3] == [-math.inf] * 3 and salience[3] == pytest.approx(worth("a"), abs=1e-2)


def test_spelling_is_what_is_spoken():
    assert spelling("Steve  Wozniak, (1976)!") == [ord(c) + 1 for c in "steve wozniak 1976"]
    assert spelling("é") == [byte + 1 for byte in "é".encode()]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Zürich", unicodedata.normalize("NFD", "Zürich")),
        ("don't", "don’t"),
        ("O'Neil", "OʼNeil"),
        ("ＧＰＴ４", "gpt4"),
        ("ﬁnance", "finance"),
        ("foo_bar-baz", "foo bar baz"),
        ("हिन्दी", unicodedata.normalize("NFD", "हिन्दी")),
    ],
)
def test_one_spelling_however_it_is_written(one, other):
    assert spelling(one) == spelling(other) != []


def test_marks_are_letters_too():
    assert bytes(symbol - 1 for symbol in spelling("हिन्दी")).decode() == "हिन्दी"
    assert bytes(symbol - 1 for symbol in spelling("北京、东京")).decode() == "北京 东京"


def test_padding_of_spellings_and_transcripts():
    assert spelling("\ud800") == [ord("?") + 1] or spelling("\ud800") == []
    assert keyword_symbols("Bob,") == (SPACE, *spelling("bob"), SPACE) and keyword_symbols("...") == ()
    assert keyword_symbols("x" * 1000) == (SPACE, *[ord("x") + 1] * LONGEST_KEYWORD)
    assert pad_spellings([[], []]).shape == (2, 1, 1)
    assert pad_transcripts(["ab", ""], [1, 2]).tolist() == [[98, 99], [0, 0], [0, 0]]


def test_the_untrained_spotter_finds_all_equal_and_learns():
    torch.manual_seed(0)
    spotter = KeywordSpotter(16)
    speech, transcripts = torch.randn(2, 12, 16), pad_transcripts(["emily", ""], [1, 1])
    mask = torch.ones(2, 12, dtype=torch.bool)
    torch.testing.assert_close(spotter(speech).exp(), torch.full((2, 12, SYMBOLS), 1 / SYMBOLS))
    optimizer = torch.optim.Adam(spotter.parameters(), 1e-2)
    losses = []
    for _ in range(60):
        loss = spotting_loss(spotter(speech), mask, transcripts)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.2 * losses[0]
    salience = keyword_salience(spotter(speech), mask, pad_spellings([["wozniak", "emily"], ["a", "b"]]))
    assert salience[0, 1] > salience[0, 0]


def test_a_frame_is_read_with_its_neighbours_and_not_with_padding():
    torch.manual_seed(0)
    spotter = KeywordSpotter(16)
    for layer in (spotter.around, spotter.symbols):
        torch.nn.init.normal_(layer.weight)
    speech = torch.randn(1, 12, 16)
    changed = speech.clone()
    changed[0, 8] = 0
    with torch.no_grad():
        moved = (spotter(speech) != spotter(changed)).any(-1)[0].tolist()
        assert moved == [8 - REACH <= frame <= 8 + REACH for frame in range(12)]
        mask = torch.arange(12)[None] < 8
        torch.testing.assert_close(spotter(changed, mask)[:, :8], spotter(speech[:, :8]))


def test_rows_without_a_transcript_do_not_count():
    log_probs, mask = frames_of("ab").expand(2, -1, -1), torch.ones(2, 6, dtype=torch.bool)
    one = spotting_loss(log_probs, mask, pad_transcripts(["ab", ""], [1, 1]))
    torch.testing.assert_close(one, spotting_loss(log_probs, mask, pad_transcripts(["ab", "ab"], [1, 1])))
    assert spotting_loss(log_probs, mask, pad_transcripts(["", ""], [1, 1])).item() == 0
    too_long = spotting_loss(log_probs, mask, pad_transcripts(["much longer than six frames"], [2]))
    assert too_long.item() == 0


def test_the_budget_goes_to_the_salient_keywords():
    #                        aaaa          bbb         cc     d
    numbers = torch.tensor([[1, 1, 1, 1, 2, 2, 2, 3, 3, 4, 4, 4, 4]])
    positions = spend_budget(torch.tensor([[-3.0, -2.0, -0.1, -0.2]]), numbers, torch.tensor([7]))
    # 7 positions, 5 of them for whole keywords: c (2 tokens) fits, d (4) after it does not, and b (3) does
    assert positions[0, 7:9].tolist() == [0, 1] and positions[0, 4:7].tolist() == [2, 3, 4]
    rest = positions[0, [0, 1, 2, 3, 9, 10, 11, 12]].tolist()
    assert rest == sorted(rest) and set(rest) == {5, 6}
    positions = spend_budget(torch.tensor([[-3.0, -0.2, -0.1, -4.0]]), numbers, torch.tensor([7]))
    assert positions[0, 7:9].tolist() == [0, 1] and positions[0, 4:7].tolist() == [2, 3, 4]


def test_a_long_keyword_does_not_block_the_others():
    """The most salient one is longer than the room for whole keywords; two of the ten after it fit."""
    numbers = torch.tensor([[1] * 20 + [number for number in range(2, 12) for _ in range(4)]])
    positions = spend_budget(-torch.arange(11.0)[None], numbers, torch.tensor([15]))[0]
    assert positions[20:28].tolist() == list(range(8))


@settings(deadline=None, max_examples=200)
@given(
    st.lists(st.lists(st.integers(1, 9), max_size=8), min_size=1, max_size=3),
    st.integers(2, 9),
    st.integers(0, 20),
    st.integers(0, 99),
)
def test_the_budget_is_kept_exactly(rows, window, least, seed):
    """Every position of every row gets a token, and whole keywords get as much as they may."""
    longest, count = max(map(sum, rows)), max([1, *map(len, rows)])
    numbers = torch.zeros(len(rows), longest, dtype=torch.long)
    for index, sizes in enumerate(rows):
        tokens = [number for number, size in enumerate(sizes, 1) for _ in range(size)]
        numbers[index, : len(tokens)] = torch.tensor(tokens, dtype=torch.long)
    salience = torch.randn(len(rows), count, generator=torch.Generator().manual_seed(seed))
    for index, sizes in enumerate(rows):
        salience[index, len(sizes) :] = -math.inf
    budgets = [pooled_length(sum(sizes), window, least) for sizes in rows]
    positions = spend_budget(salience, numbers, torch.tensor(budgets))
    for index, sizes in enumerate(rows):
        budget = budgets[index]
        found = positions[index, : sum(sizes)].tolist()
        assert set(found) == set(range(budget))
        if budget == sum(sizes):
            assert found == list(range(budget))  # nothing is compressed, and nothing moves
            continue
        order = salience[index].argsort(descending=True, stable=True).tolist()
        place = 0
        for keyword in order[: len(sizes)]:
            if place + sizes[keyword] > math.floor(KEPT * budget):
                continue  # a smaller one may fit
            first = sum(sizes[:keyword])
            assert found[first : first + sizes[keyword]] == list(range(place, place + sizes[keyword]))
            place += sizes[keyword]


def test_mean_at_positions():
    context = torch.tensor([[[2.0], [4.0], [9.0], [torch.inf]]])
    pooled = mean_at(context, torch.tensor([[0, 0, 1, 0]]), torch.tensor([[True, True, True, False]]), 3)
    assert pooled.flatten().tolist() == [3.0, 9.0, 0.0]


def test_the_mean_does_not_depend_on_the_order_in_half_precision():
    tokens = torch.tensor([256.0] + [1.0] * 63, dtype=torch.bfloat16)[None, :, None]
    positions, valid = torch.zeros(1, 64, dtype=torch.long), torch.ones(1, 64, dtype=torch.bool)
    for order in (tokens, tokens.flip(1)):
        pooled = mean_at(order, positions, valid, 1)
        assert pooled.dtype == torch.bfloat16 and pooled.item() == torch.tensor(319 / 64).bfloat16().item()


def test_pooling_with_salience():
    torch.manual_seed(0)
    pooling = SpeechDrivenPooling(16, 4, 3, "salience", min_positions=0)
    speech, context = torch.randn(2, 9, 16), torch.randn(2, 8, 16, requires_grad=True)
    numbers = torch.tensor([[1, 1, 1, 2, 2, 3, 3, 3], [1, 1, 2, 2, 0, 0, 0, 0]])
    spellings = pad_spellings([["ab", "c", "d"], ["e", "f"]])
    pooled, mask = pooling(speech, context, None, numbers > 0, numbers, spellings)
    assert pooled.shape == (2, 3, 16) and mask.tolist() == [[True] * 3, [True, True, False]]
    assert (pooled[1, 2] == 0).all()
    pooled.sum().backward()
    assert (context.grad[numbers > 0] != 0).all() and (context.grad[numbers == 0] == 0).all()
    with torch.no_grad():
        alone, _ = pooling(speech[1:], context[1:, :4], None, numbers[1:, :4] > 0, numbers[1:, :4], spellings[1:])
        torch.testing.assert_close(alone[0], pooled[1, :2])
        scrambled = context.masked_fill((numbers == 0).unsqueeze(-1), torch.inf)
        assert torch.equal(pooling(speech, scrambled, None, numbers > 0, numbers, spellings)[0], pooled)
    with pytest.raises(ValueError, match="keyword_numbers and spellings"):
        pooling(speech, context)


def test_short_lists_stay_whole():
    torch.manual_seed(0)
    pooling = SpeechDrivenPooling(16, 4, 4, "salience", min_positions=6)
    context = torch.randn(3, 40, 16)
    numbers = torch.zeros(3, 40, dtype=torch.long)
    for row, tokens in enumerate((5, 7, 40)):
        numbers[row, :tokens] = torch.arange(tokens) // 3 + 1
    spellings = pad_spellings([["ab"] * 14] * 3)
    pooled, mask = pooling(torch.randn(3, 9, 16), context, None, numbers > 0, numbers, spellings)
    assert pooled.shape[1] == 10 and mask.sum(-1).tolist() == [5, 6, 10]
    assert torch.equal(pooled[0, :5], context[0, :5])
    assert [pooled_length(tokens, 4, 6) for tokens in (0, 5, 7, 40)] == [0, 5, 6, 10]


@pytest.mark.parametrize(
    ("pooling", "least", "message"),
    [("mean", 4, "min_positions is 4 with pooling 'mean'"), ("salience", -1, "min_positions is -1; allowed")],
)
def test_impossible_minimums_are_refused(pooling, least, message):
    with pytest.raises(ValueError, match=message):
        SpeechDrivenPooling(16, 4, 2, pooling, least)


def test_other_poolings_have_no_parameters():
    assert not list(SpeechDrivenPooling(16, 4, 2, "attention").parameters())
    assert not list(SpeechDrivenPooling(16, 4, 2, "mean").parameters())
