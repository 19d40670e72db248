"""The best path of each of many spellings through the frames of a speech, with common beginnings computed once.

The spellings form a trie. On the CPU it is walked node by node, down first, and only the nodes on the way from the root
are in memory (numba). On a GPU it is walked level by level: along the frames a path is a running maximum of what
entered it, less what the frames before it cost, so that there is no loop over frames (torch).

Scores are whole numbers of :data:`STEP`, so that both ways, and any other, find the very same sums.

Notation: A audios, T frames, S symbols (0 is the blank), K spellings of an audio, n symbols of a spelling, N nodes. The
states of a spelling are its symbols with a blank between each two; a path enters the first at any frame, leaves the
last at any later one, and may skip a blank that does not stand between two equal symbols (CTC, Graves et al. 2006).
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

STEP = 1 / 256
"""What one unit of a score is worth, in nats."""
LOWEST = -32.0
"""What a symbol costs at most in one frame, in nats; sums over 60,000 frames fit into 32 bits."""
UNREACHED = -(2**30)
"""Score of a spelling that has no symbol, or more than fit into the frames."""
CELLS = 1 << 25
"""Nodes times frames that the search on a GPU holds at a time, about."""


class Trie(NamedTuple):
    """Spellings of each audio as a tree; its nodes are in the order of a walk that goes down first.

    Attributes:
        symbols: (N,) int32, what a node adds to its parent.
        depths: (N,) int32, from 0; the parent of a node is the last one before it that is one less deep.
        owners: (N,) int32, the audio.
        ends: (A, K) int64, the node where a spelling ends; -1 where it has no symbol.
    """

    symbols: np.ndarray
    depths: np.ndarray
    owners: np.ndarray
    ends: np.ndarray


def frame_scores(log_probs: Tensor) -> Tensor:
    """Log probabilities (A, T, S), relative to the best symbol of their frame, in whole numbers of :data:`STEP`; int32.

    Never above 0, nor below :data:`LOWEST`.
    """
    relative = log_probs - log_probs.amax(-1, keepdim=True)
    return (relative.clamp(min=LOWEST) / STEP).round().to(torch.int32)


def build_trie(spellings: np.ndarray) -> Trie:
    """The trie of (A, K, n) symbols, 0 = padding; equal spellings of an audio end at one node."""
    audios, count, longest = spellings.shape
    table = np.ascontiguousarray(spellings, dtype=">u2")
    # sorted as texts of two bytes a symbol, the higher one first, which is the order of the symbols
    order = table.view(f"S{2 * longest}")[..., 0].argsort(axis=1, kind="stable")
    table = table.astype(np.uint16)
    nodes = int(np.count_nonzero(table))
    symbols, depths, owners = (np.empty(nodes, dtype=np.int32) for _ in range(3))
    ends = np.full((audios, count), -1, dtype=np.int64)
    used = _kernels().grow(table, order, symbols, depths, owners, ends)
    return Trie(symbols[:used].copy(), depths[:used].copy(), owners[:used].copy(), ends)


@torch.no_grad()
def best_paths(scores: Tensor, speech_mask: Tensor, trie: Trie) -> Tensor:
    """Score of the best path of each spelling through the valid frames of its audio.

    Args:
        scores: (A, T, S) of :func:`frame_scores`.
        speech_mask: (A, T), True = valid; the valid frames come first.
        trie: of the same audios.

    Returns:
        (A, K) int32, at most 0; :data:`UNREACHED` where a spelling has no symbol or does not fit into the frames.
    """
    ends = torch.from_numpy(trie.ends).to(scores.device)
    if not len(trie.symbols) or not scores.shape[1]:
        return torch.full_like(ends, UNREACHED, dtype=torch.int32)
    best = _by_levels(scores, speech_mask, trie) if scores.is_cuda else _by_nodes(scores, speech_mask, trie)
    found = best[ends.clamp(min=0)].masked_fill(ends < 0, UNREACHED)
    return found.masked_fill(found < UNREACHED // 2, UNREACHED)


def _by_nodes(scores: Tensor, speech_mask: Tensor, trie: Trie) -> Tensor:
    by_symbol = np.ascontiguousarray(scores.cpu().numpy().transpose(0, 2, 1))
    frames = speech_mask.cpu().sum(-1).numpy()
    best = np.empty(len(trie.symbols), dtype=np.int32)
    room = np.empty((2, int(trie.depths.max()) + 1, by_symbol.shape[2]), dtype=np.int32)
    _kernels().walk(by_symbol, frames, trie.symbols, trie.depths, trie.owners, best, room)
    return torch.from_numpy(best).to(scores.device)


def _by_levels(scores: Tensor, speech_mask: Tensor, trie: Trie) -> Tensor:
    best = torch.empty(len(trie.symbols), dtype=torch.int32, device=scores.device)
    for nodes in _parts(trie, max(1, CELLS // scores.shape[1])):
        best[torch.from_numpy(nodes).to(scores.device)] = _search_levels(scores, speech_mask, trie, nodes)
    return best


def _parts(trie: Trie, most: int) -> Iterator[np.ndarray]:
    """The nodes in parts of about so many, each with the nodes on the way to its first."""
    for first in range(0, len(trie.symbols), most):
        way, node = [], first
        while trie.depths[node] > 0:
            node -= 1 + int(np.argmax(trie.depths[node - 1 :: -1] < trie.depths[node]))
            way.append(node)
        yield np.array([*reversed(way), *range(first, min(first + most, len(trie.symbols)))])


class _Level(NamedTuple):
    """The nodes of one depth, and (nodes, T) the scores of the blank after each symbol and of the better of the two."""

    numbers: np.ndarray
    symbols: Tensor
    blanks: Tensor
    either: Tensor


def _search_levels(scores: Tensor, speech_mask: Tensor, trie: Trie, nodes: np.ndarray) -> Tensor:
    """Best score of each of these nodes.

    With e the scores of a state in each frame, C their running sum, and x what enters the state, its path is
    p[t] = max(p[t-1], x[t]) + e[t] = C[t] + max over u up to t of (x[u] - C[u-1]).
    """
    depths = trie.depths[nodes]
    symbols, owners = (torch.from_numpy(part[nodes]).to(scores.device) for part in (trie.symbols, trie.owners))
    costs = scores.cumsum(1, dtype=torch.int32).transpose(1, 2)  # (A, S, T)
    before = _later(costs, 0)
    best = torch.empty(len(nodes), dtype=torch.int32, device=scores.device)
    above: _Level | None = None
    for depth in range(int(depths.max()) + 1):
        numbers = np.flatnonzero(depths == depth)
        here = torch.from_numpy(numbers).to(scores.device)
        symbol, owner = symbols[here].long(), owners[here].long()
        path = (_entered(above, numbers, symbol) - before[owner, symbol]).cummax(-1).values + costs[owner, symbol]
        blank = (_later(path) - before[owner, 0]).cummax(-1).values + costs[owner, 0]
        best[here] = path.masked_fill(~speech_mask[owner], UNREACHED).amax(-1)
        above = _Level(numbers, symbol, blank, torch.maximum(path, blank))
    return best


def _entered(above: _Level | None, numbers: np.ndarray, symbols: Tensor) -> Tensor | int:
    """What enters each node in each frame: (nodes, T), or 0 for the first symbols, which can be entered at any time."""
    if above is None:
        return 0
    parents = torch.from_numpy(np.searchsorted(above.numbers, numbers) - 1).to(symbols.device)
    repeated = above.symbols[parents] == symbols  # between equal symbols the blank is needed
    return _later(torch.where(repeated.unsqueeze(-1), above.blanks[parents], above.either[parents]))


def _later(scores: Tensor, first: int = UNREACHED) -> Tensor:
    """(…, T) one frame later."""
    return torch.nn.functional.pad(scores, (1, 0), value=first)[..., :-1]


class _Kernels(NamedTuple):
    grow: Callable[..., int]
    walk: Callable[..., None]


@functools.cache
def _kernels() -> _Kernels:
    """The loops, compiled when they are first needed: numba takes its time to be imported."""
    from sap2.compiling import compiled

    return _Kernels(compiled(_grow), compiled(_walk))


def _grow(table, order, symbols, depths, owners, ends):
    """Fill the arrays of a trie; returns how many nodes it has."""
    used = 0
    way = np.empty(table.shape[2], dtype=np.int64)
    for audio in range(table.shape[0]):
        previous = 0
        for place in range(table.shape[1]):
            row = order[audio, place]
            length = 0
            while length < table.shape[2] and table[audio, row, length] > 0:
                length += 1
            shared = 0
            if place > 0:
                while shared < length and table[audio, row, shared] == table[audio, previous, shared]:
                    shared += 1
            for depth in range(shared, length):
                symbols[used] = table[audio, row, depth]
                depths[used] = depth
                owners[used] = audio
                way[depth] = used
                used += 1
            if length > 0:
                ends[audio, row] = way[length - 1]
            previous = row
    return used


def _walk(scores, frames, symbols, depths, owners, best, room):
    """Best score of each node. ``scores`` (A, S, T); ``room`` (2, depth, T) is for the way from the root to a node."""
    nothing = np.int32(-(2**30))
    blanks, either = room[0], room[1]
    way = np.zeros(room.shape[1], dtype=np.int32)
    for node in range(symbols.shape[0]):
        depth, symbol, audio = depths[node], symbols[node], owners[node]
        emitted, silent, last = scores[audio, symbol], scores[audio, 0], frames[audio]
        way[depth] = symbol
        entered = either[depth - 1]
        if depth > 0 and way[depth - 1] == symbol:  # between equal symbols the blank is needed
            entered = blanks[depth - 1]
        path, blank, top = nothing, nothing, nothing
        for frame in range(depth, last):  # a symbol takes at least one frame
            blank = max(blank, path) + silent[frame]
            path = max(path, entered[frame - 1] if depth > 0 else np.int32(0)) + emitted[frame]
            blanks[depth, frame] = blank
            either[depth, frame] = max(path, blank)
            top = max(top, path)
        best[node] = top
