"""Does attention explain? Compare it with saliency, over utterances of several talks.

    python eval/explain.py UTTERANCES OUTPUT --model sap2-tiny --asr-adapter sap2-tiny-asr

For each word that the model writes: the correlation of attention with saliency over the audio, by layer, head and
aggregate; the share of saliency that lies under attention; how fast the word dies when the places that a map puts first
are silenced; and for each keyword that the model was told, its attention beside what the word loses without it.
Saliency is that of ``sap2 explain``: silenced regions, and integrated gradients. A run goes on where it was stopped.

Source: Papi et al. 2025 (arXiv 2509.18010), for encoders with decoders.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
from pathlib import Path
from typing import Any, NamedTuple

sys.path.append(str(Path(__file__).resolve().parents[1]))  # sap2 beside this folder, where it is not installed

import numpy as np
import torch
from explain_measures import around, covered, deletions, pearson, spearman
from explain_report import write_report

from sap2.audio import load_samples
from sap2.commands.shared import Parser, positive, run_parser
from sap2.errors import InputError
from sap2.explain.forced import ForcedReply
from sap2.explain.lists import told_keywords, without_each
from sap2.explain.looking import listen, look, pooling_attention
from sap2.explain.masks import BANDS, draw_masks, relevance
from sap2.explain.page import TOKEN_SECONDS
from sap2.explain.saliency import answers, by_gradients, word_log_probs
from sap2.explain.spans import SpelledReply, WordSpan, spell_reply, word_keywords
from sap2.pipeline.pruners import PruneOptions
from sap2.pipeline.transcriber import Transcriber
from sap2.pipeline.utterances import Job, Outcome
from sap2.progress import progress
from sap2.rowfiles import read_rows
from sap2.rows import Row


class Maps(NamedTuple):
    """Of one utterance.

    Attributes:
        tokens: (R, T) saliency of each token of the reply by silenced regions; ``halves`` of it by every other masks.
        attention: (layers, heads, R, T) on the audio.
        gradients: (W, T).
        spotter: (W, T) around where the spotter hears each word; None where the model has none.
    """

    tokens: np.ndarray
    halves: tuple[np.ndarray, np.ndarray]
    attention: np.ndarray
    gradients: np.ndarray
    spotter: np.ndarray | None


def nobody(count: int) -> None:
    """Is told nothing."""


class Measurer:
    """Measures utterances, one at a time."""

    def __init__(self, args: argparse.Namespace):
        prune = PruneOptions(pruner=args.pruner) if args.pruner != "none" else None
        self.transcriber = Transcriber(
            args.model, asr_adapter=args.asr_adapter, prune=prune, batch_size=args.batch_size
        )
        self.spelling = "model" if self.transcriber.times_words else None
        self.decoder, self.masks, self.steps, self.batch = (
            self.transcriber.decoder,
            args.masks,
            args.gradient_steps,
            args.batch_size,
        )

    def measure(self, row: Row) -> dict[str, Any]:
        """All figures of an utterance, as JSON."""
        encoder, stage = self.decoder.encoder, self.decoder.stages[-1]
        samples = load_samples(row["audio"], encoder.sampling_rate)
        job = Job(row["id"], lambda: samples, row["keywords"], word_spelling=self.spelling)
        prepared = self.decoder.prepare(job)
        (outcome,) = self.decoder.decode([prepared])
        reply = spell_reply(outcome.replies[stage], outcome.reading.text, encoder.tokenizer)
        found = {"id": row["id"], "session": row["session"], "said": row["text"], "text": outcome.reading.text}
        if not reply.words:
            return {**found, "words": []}
        prompt = encoder.prompt(outcome.content, self.decoder.loaded.systems[stage], prepared.heard.tokens)
        forced = ForcedReply(self.decoder.loaded, encoder, stage, prepared.heard, prompt, reply.ids)
        return found | self._measure(forced, reply, outcome, row["keywords"])

    def _measure(self, forced: ForcedReply, reply: SpelledReply, outcome: Outcome, offered: list[str]) -> dict:
        maps, words = self._maps(forced, reply, outcome), reply.words
        keywords = word_keywords(outcome.reading.text, offered)
        pooled, lists = self._lists(forced, reply, outcome, offered, keywords)
        full, curves = self._deletions(forced, words, maps, pooled)
        figures = []
        for index, word in enumerate(words):
            silenced = maps.tokens[word.tokens].sum(0)
            attention = maps.attention[:, :, word.tokens].mean(2)
            one = {"text": word.text, "keyword": keywords[index], "full": full[index], "died": curves[index]}
            one["reliability"] = pearson(*(half[word.tokens].sum(0) for half in maps.halves))
            one["heads"] = [[pearson(head, silenced) for head in layer] for layer in attention]
            rivals = {"attention": attention.mean((0, 1)), "gradients": maps.gradients[index]}
            rivals |= {f"layer {n}": layer.mean(0) for n, layer in enumerate(attention, 1)}
            rivals |= {} if maps.spotter is None else {"spotter": maps.spotter[index]}
            if pooled[index] is not None:
                rivals["pooling"] = pooled[index]
            one["pearson"] = {name: pearson(map, silenced) for name, map in rivals.items()}
            one["spearman"] = {name: spearman(map, silenced) for name, map in rivals.items()}
            one["covered"] = {name: covered(map.clip(min=0), silenced) for name, map in rivals.items()}
            one["with gradients"] = pearson(attention.mean((0, 1)), maps.gradients[index])
            figures.append(one)
        every = slice(0, len(maps.tokens))
        letters = maps.attention.mean((0, 1))[every]
        return {
            "words": figures,
            "tokens": [pearson(a, s) for a, s in zip(letters, maps.tokens, strict=True)],
            "tokens spearman": [spearman(a, s) for a, s in zip(letters, maps.tokens, strict=True)],
            "flat": pearson(letters, maps.tokens),
            "lists": lists,
        }

    def _maps(self, forced: ForcedReply, reply: SpelledReply, outcome: Outcome) -> Maps:
        letters = [WordSpan("", [n]) for n in range(len(reply.ids) - 1)]  # all but the end
        kept = draw_masks(self.masks, forced.heard.tokens, seed=0)
        given = answers(forced, letters, kept, self.batch, nobody)
        halves = np.arange(len(kept)) // 3 % 2 == 0  # masks of all three sizes in both
        parts = [relevance(kept[part], given[part]).sum(1) for part in (halves, ~halves)]
        places = np.flatnonzero(np.array(forced.prompt.input_ids) == forced.encoder.placeholder_ids[0])
        times = outcome.words or []
        spotter = [around(word.start, word.end, forced.heard.tokens, TOKEN_SECONDS) for word in times]
        return Maps(
            relevance(kept, given).sum(1),
            (parts[0], parts[1]),
            forced.attention()[:, :, :-1, places].cpu().numpy(),
            by_gradients(forced, reply.words, self.steps, self.batch, nobody),
            np.stack(spotter) if spotter else None,
        )

    def _deletions(
        self, forced: ForcedReply, words: list[WordSpan], maps: Maps, pooled: list[np.ndarray | None]
    ) -> tuple[list[float], list[dict[str, list[float]]]]:
        """The probability of each word, and what is left of it by map and fraction."""
        chance = np.random.default_rng(0)
        with torch.no_grad():
            full = word_log_probs(forced.log_probs(forced.features[None]), words)[0].exp().tolist()
        orders: list[tuple[int, str, np.ndarray]] = []
        for index, word in enumerate(words):
            named = {"silenced": maps.tokens[word.tokens].sum(0), "gradients": maps.gradients[index]}
            named |= {"attention": maps.attention[:, :, word.tokens].mean((0, 1, 2))}
            named |= {"random": chance.random(forced.heard.tokens)}
            named |= {} if maps.spotter is None else {"spotter": maps.spotter[index]}
            named |= {} if pooled[index] is None else {"pooling": pooled[index]}
            orders += [(index, name, map) for name, map in named.items()]
        masks = np.concatenate([deletions(map, BANDS) for _, _, map in orders])
        left = np.exp(answers(forced, words, masks, self.batch, nobody)).reshape(len(orders), -1, len(words))
        curves: list[dict[str, list[float]]] = [{} for _ in words]
        for (index, name, _), values in zip(orders, left, strict=True):
            curves[index][name] = [float(f"{value:.4g}") for value in values[:, index]]
        return full, curves

    def _lists(self, forced, reply, outcome, offered, keywords):
        """The pooling's attention over the audio for each word that is a keyword, and for each word and keyword that
        was told: attention, and what the word loses without it."""
        told = told_keywords(outcome, offered)
        looks = look(forced, forced.attention().mean((0, 1)), reply.words, listen(forced).shares)
        without = without_each(forced, outcome.content, reply.words, self.batch, nobody)
        with torch.no_grad():
            full = word_log_probs(forced.log_probs(forced.features[None]), reply.words)[0].tolist()
        pairs = [
            [keywords[w] == keyword, float(looks.keywords[w, k]), full[w] - float(without[k][w])]
            for w in range(len(reply.words))
            for k, keyword in enumerate(told)
        ]
        return [self._pooled(forced, word) for word in keywords], {"told": len(told), "pairs": pairs}

    def _pooled(self, forced: ForcedReply, keyword: str | None) -> np.ndarray | None:
        """(T,) how much each frame looks at the keyword's tokens, by the paper's pooling; None for no keyword that was
        told."""
        context = forced.prompt.context
        names = [name.strip().casefold() for name in context.keywords]
        if keyword is None or keyword.casefold() not in names:
            return None
        with forced.loaded.use(forced.stage) as model, torch.no_grad():
            ids = torch.tensor(context.ids, device=forced.loaded.device)
            speech, heads = forced.speech(), model.model.context_pooling.num_heads
            given = pooling_attention(
                speech.embeddings[0, speech.mask[0]], model.model.get_input_embeddings()(ids), heads
            )
        own = torch.tensor(context.numbers) == names.index(keyword.casefold()) + 1
        return given.cpu()[:, own].sum(-1).numpy()


def chosen_rows(path: Path, per_talk: int) -> list[Row]:
    """So many utterances of each talk, evenly over it. The first of each talk come first: a run that was stopped has
    something of all of them.

    Raises:
        InputError: there are fewer than two talks, of which no interval can be made.
    """
    talks: dict[str, list[Row]] = {}
    for _, row in read_rows(path):
        talks.setdefault(row["session"], []).append(row)
    if len(talks) < 2:
        raise InputError(f"{path} holds {len(talks)} talks; allowed: 2 or more")
    counts = [min(per_talk, len(rows)) for rows in talks.values()]
    spread = [
        [rows[index * len(rows) // count] for index in range(count)]
        for rows, count in zip(talks.values(), counts, strict=True)
    ]
    return [row for round in itertools.zip_longest(*spread) for row in round if row is not None]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of the command."""
    parser.add_argument("utterances", type=Path, metavar="UTTERANCES", help="of several talks, with their lists")
    parser.add_argument("output", type=Path, metavar="OUTPUT", help="folder for figures, tables and plot")
    parser.add_argument("--model", default="sap2-tiny", help="default: %(default)s")
    parser.add_argument("--asr-adapter", default="sap2-tiny-asr", help="default: %(default)s")
    parser.add_argument("--pruner", default="spot", help="spot, match, or none (default: %(default)s)")
    parser.add_argument("--per-talk", type=positive, default=2, metavar="N", help="utterances (default: %(default)s)")
    parser.add_argument("--masks", type=positive, default=480, metavar="N", help="default: %(default)s")
    parser.add_argument("--gradient-steps", type=positive, default=8, metavar="N", help="default: %(default)s")
    parser.add_argument("--batch-size", type=positive, default=32, metavar="N", help="default: %(default)s")


def run(args: argparse.Namespace) -> None:
    """Measure what is not measured yet, and report."""
    args.output.mkdir(parents=True, exist_ok=True)
    path = args.output / "figures.jsonl"
    done = {row["id"] for _, row in read_rows(path)} if path.exists() else set()
    rows = [row for row in chosen_rows(args.utterances, args.per_talk) if row["id"] not in done]
    measurer = Measurer(args)
    with path.open("a", encoding="utf-8") as stream:
        for row in progress(rows, "explain", unit="utterance"):
            stream.write(json.dumps(measurer.measure(row)) + "\n")
            stream.flush()
    print(write_report(args.output))


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    parser = Parser(prog="explain.py", description=__doc__)
    add_arguments(parser)
    parser.set_defaults(run=run)
    return run_parser(parser, argv)


if __name__ == "__main__":
    sys.exit(main())
