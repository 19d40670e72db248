"""bench_serve asks its servers in turn, and its table has a row for each."""

from __future__ import annotations

import bench_serve
import pytest


class Fake:
    """A server that takes half a second of processor time for what it is asked."""

    url, taken = "http://127.0.0.1:1", 0.0

    def cpu_seconds(self):
        self.taken += 0.5
        return self.taken


def test_servers_are_asked_in_turn_and_compared():
    asked = []

    def ask(name):
        return lambda client, audio: asked.append(name) or f"{audio} {'other' if name == 'c' else 'same'}"

    arms = [bench_serve.Arm("a", Fake(), ask("a"))]
    arms += [bench_serve.Arm(name, Fake(), ask(name), "a") for name in "bc"]
    assert list(bench_serve.agree(arms, ["x", "y"])) == [
        "b: 2 of 2 answers are those of a",
        "c: 0 of 2 answers are those of a",
    ]
    asked.clear()
    figures = list(bench_serve.compare(arms, ["x"], [1, 2], 6))
    assert asked == [*"aabbcc" * 3] * 2
    assert [f"{figure.name}{figure.clients}" for figure in figures] == ["a1", "b1", "c1", "a2", "b2", "c2"]
    assert all(figure.cpu == pytest.approx(3 * 0.5 / 6) and figure.median <= figure.late for figure in figures)
    table = bench_serve.report(figures).splitlines()
    assert table[0].split()[-2:] == ["cpu", "ms"] and table[1].endswith("250.0") and len(table) == 7
