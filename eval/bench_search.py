"""Search a list of terms in one speech of 3 s: seconds and memory, and those of a loop over frames without a trie.

    python eval/bench_search.py --terms 10000 100000

Terms are made of syllables, 9 letters on average. One thread; each number is the median of several runs, memory is what
the process needs at most beyond what it needed before, in a process of its own.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from children import run_apart
from torch import Tensor

from sap2.commands.shared import Parser, run_parser
from sap2.model.search import best_paths, build_trie, frame_scores
from sap2.model.spotter import SYMBOLS, pad_spellings

FRAMES = 75
"""3 s of speech."""
SYLLABLES = [
    "ka",
    "ro",
    "mi",
    "tel",
    "vend",
    "jal",
    "stis",
    "nail",
    "bra",
    "kro",
    "von",
    "lo",
    "tit",
    "ek",
    "sun",
    "dar",
    "pel",
    "ax",
    "or",
    "wim",
    "gru",
    "sho",
    "fen",
    "by",
    "qua",
    "zed",
]
LOOP_MOST = 20_000
"""Terms that the loop over frames is asked for at most: it takes gigabytes."""


def loop_over_frames(scores: Tensor, speech_mask: Tensor, spellings: Tensor) -> Tensor:
    """Best path of each spelling, all spellings a frame at a time, without a trie.

    Args:
        scores: (A, T, S) of :func:`sap2.model.search.frame_scores`.
        speech_mask: (A, T), True = valid.
        spellings: (A, K, n) symbols, 0 = padding.

    Returns:
        (A, K) float32 scores, -inf where there is no path.
    """
    audios, count, longest = spellings.shape
    lengths = (spellings > 0).sum(-1)
    states = spellings.new_zeros((audios, count, 2 * longest - 1))
    states[..., ::2] = spellings
    may_skip = torch.zeros_like(states, dtype=torch.bool)
    may_skip[..., 2::2] = spellings[..., 1:] != spellings[..., :-1]
    last = (2 * lengths - 2).clamp(min=0).unsqueeze(-1)
    relative = scores.float()
    paths = relative.new_full(states.shape, -torch.inf)
    best = relative.new_full((audios, count, 1), -torch.inf)
    for frame in range(relative.shape[1]):
        emitted = relative[:, frame].gather(1, states.flatten(1)).view_as(states)
        entered = torch.nn.functional.pad(paths, (1, 0), value=0.0)[..., :-1]
        skipped = torch.nn.functional.pad(paths, (2, 0), value=-torch.inf)[..., :-2]
        paths = torch.maximum(torch.maximum(paths, entered), skipped.masked_fill(~may_skip, -torch.inf)) + emitted
        best = torch.where(speech_mask[:, frame, None, None], torch.maximum(best, paths.gather(-1, last)), best)
    return best.squeeze(-1).masked_fill(lengths == 0, -torch.inf)


def make_terms(count: int, seed: int = 0) -> list[str]:
    """So many different terms."""
    rng = random.Random(seed)
    terms: set[str] = set()
    while len(terms) < count:
        terms.add("".join(rng.choice(SYLLABLES) for _ in range(rng.randint(2, 5))))
    return sorted(terms, key=lambda _: rng.random())


def _seconds(run: Callable[[], object], repeats: int) -> float:
    run()  # what is compiled or looked up once
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def _peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def measure(count: int, repeats: int, device: str) -> dict[str, float | int]:
    """The numbers of one size; to be called in a process that has done nothing else."""
    torch.set_num_threads(1)
    noise = torch.randn((1, FRAMES, SYMBOLS), generator=torch.Generator().manual_seed(0)).mul(3).log_softmax(-1)
    scores, mask = frame_scores(noise).to(device), torch.ones((1, FRAMES), dtype=torch.bool, device=device)
    best_paths(scores, mask, build_trie(pad_spellings([["warm"]]).numpy()))
    terms = make_terms(count)
    before = _peak_mib()
    start = time.perf_counter()
    trie = build_trie(pad_spellings([terms]).numpy())
    row = {"terms": count, "nodes": len(trie.symbols), "prepare_seconds": time.perf_counter() - start}
    row["search_seconds"] = _seconds(lambda: _finish(best_paths(scores, mask, trie)), repeats)
    row["search_mib"] = _peak_mib() - before
    if count <= LOOP_MOST:
        spellings = pad_spellings([terms]).to(device)
        row["loop_seconds"] = _seconds(lambda: _finish(loop_over_frames(scores, mask, spellings)), 1)
        row["loop_mib"] = _peak_mib() - before
        row["equal"] = torch.equal(best_paths(scores, mask, trie).float(), loop_over_frames(scores, mask, spellings))
    return row


def _finish(result: Tensor) -> None:
    if result.is_cuda:
        torch.cuda.synchronize()


def print_table(rows: list[dict[str, float | int]]) -> None:
    """One line a size."""
    print(
        f"{'terms':>9}{'nodes':>10}{'prepare s':>11}{'search ms':>11}{'MiB':>6}{'loop ms':>10}{'MiB':>7}  same scores"
    )
    for row in rows:
        loop = f"{row['loop_seconds'] * 1e3:10.1f}{row['loop_mib']:7.0f}  {row['equal']}" if "equal" in row else ""
        print(
            f"{row['terms']:9,}{row['nodes']:10,}{row['prepare_seconds']:11.3f}{row['search_seconds'] * 1e3:11.1f}"
            f"{row['search_mib']:6.0f}{loop}"
        )


def run(args: argparse.Namespace) -> None:
    """Measure and print."""
    rows = []
    for count in args.terms:
        rows.append(run_apart(measure, count, args.repeats, args.device))
    print_table(rows)
    if args.json:
        args.json.write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    parser = Parser(prog="bench_search.py", description=__doc__)
    parser.add_argument("--terms", type=int, nargs="+", default=[40, 500, 2000, 10_000, 100_000])
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--json", type=Path, help="write the numbers here")
    parser.set_defaults(run=run)
    return run_parser(parser, argv)


if __name__ == "__main__":
    sys.exit(main())
