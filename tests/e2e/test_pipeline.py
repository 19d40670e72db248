"""``sap2 pipeline`` and ``sap2 transcribe`` beside two ``swift infer`` runs; killed in the middle; on two ranks."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile
from pipeline_helpers import make_adapter

from sap2.data.extract_predicted_keywords import extract_predicted_keywords
from sap2.rowfiles import read_rows
from sap2.rows import row_keywords

from .conftest import environment, infer_arguments, read_results

pytestmark = pytest.mark.timeout(900)


@pytest.fixture(scope="module")
def prune_adapter(corpus, tmp_path_factory) -> Path:
    """Learnt to pick the first keyword of the first test row, and to reply "who", which is in no list."""
    rows = [row for _, row in read_rows(corpus.root / "test.prune.jsonl")]
    lists, wavs = [row_keywords(row) for row in rows], [row["audios"][0] for row in rows]
    folder = tmp_path_factory.mktemp("prune") / "checkpoint"
    learn = ("prune", lists, f"{lists[0][0]}, who")
    return make_adapter(
        corpus.model, folder, learn=learn, wavs=wavs, steps=40, sap_pooling="salience", sap_min_positions=64
    )


def sap2_here(*arguments: str) -> None:
    """The command in this process, which has the imports already."""
    from sap2.cli import main

    assert main(arguments) == 0


@pytest.fixture(scope="module")
def arguments(corpus, prune_adapter, asr_adapter):
    """The options of a run, but for the result."""
    given = ["--val_dataset", str(corpus.root / "test.prune.jsonl"), "--model", str(corpus.model)]
    given += ["--prune-adapter", str(prune_adapter), "--asr-adapter", str(asr_adapter)]
    return ["pipeline", *given, "--max_new_tokens", "60", "--batch_size", "2"]


@pytest.fixture(scope="module")
def result(arguments, tmp_path_factory) -> Path:
    """Of one uninterrupted run."""
    path = tmp_path_factory.mktemp("result") / "result.jsonl"
    sap2_here(*arguments, "--result_path", str(path))
    return path


def without_seconds(path: Path) -> list[dict]:
    """The rows but for what a clock measured."""
    return [{name: value for name, value in row.items() if name != "seconds"} for row in read_results(path)]


def test_the_pipeline_equals_two_runs_of_swift_infer(corpus, prune_adapter, asr_adapter, result, tmp_path):
    first, second, rows = (tmp_path / name for name in ("first.jsonl", "second.jsonl", "rows.jsonl"))
    from swift.pipelines import infer_main

    batches = ["--max_batch_size", "3"]
    prune_rows = corpus.root / "test.prune.jsonl"
    infer_main(["--adapters", str(prune_adapter), *infer_arguments(prune_rows, first, *batches)])
    extract_predicted_keywords(first, corpus.test, rows)
    infer_main(["--adapters", str(asr_adapter), *infer_arguments(rows, second, *batches)])
    ours = {row["audios"][0]: row for row in read_results(result)}
    picked = {row["audios"][0]: row["response"] for row in read_results(first)}
    expected = {row["audios"][0]: row["response"] for row in read_results(second)}
    assert {audio: row["replies"]["prune"] for audio, row in ours.items()} == picked
    assert {audio: row["response"] for audio, row in ours.items()} == expected
    assert any(row["picked_keywords"] for row in ours.values())
    assert all("who" in row["unlisted_keywords"] for row in ours.values())


def test_a_training_records_what_its_rows_are(asr_adapter):
    args = json.loads((asr_adapter / "args.json").read_text(encoding="utf-8"))
    assert (args["sap_case"], args["sap_stages"]) == ("lower", ["asr"])


def test_a_killed_run_goes_on_and_loses_and_repeats_nothing(arguments, result, tmp_path, capsys):
    path = tmp_path / "result.jsonl"
    command = [sys.executable, "-m", "sap2.cli", *arguments, "--result_path", str(path)]
    process = subprocess.Popen(command, env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 300
    while not (path.exists() and path.read_bytes().count(b"\n") >= 2):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    before = path.read_bytes()
    done = before.count(b"\n")
    total = len(read_results(result))
    assert 2 <= done < total
    path.write_bytes(before + b'{"id": "cut o')
    sap2_here(*command[3:])
    assert f"{total} rows, 0 failed, {done} done before" in capsys.readouterr().out
    assert without_seconds(path) == without_seconds(result)


def test_two_ranks_give_the_file_of_one(arguments, result, tmp_path):
    path = tmp_path / "result.jsonl"
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    command = [*launcher, "-m", "sap2.cli", *arguments, "--result_path", str(path)]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-4000:]
    assert done.stdout.count("0 failed") == 1
    assert without_seconds(path) == without_seconds(result)
    left = sorted(file.name for file in tmp_path.iterdir())
    assert left == ["result.jsonl", "result.prune.jsonl", "result.settings.json"]


def test_five_minutes_of_talks_come_out_with_timestamps(corpus, prune_adapter, asr_adapter, tmp_path):
    parts = [soundfile.read(path)[0] for path in sorted((corpus.root / "talks" / "wav").glob("*.wav"))]
    samples = np.concatenate(parts)
    samples = np.tile(samples, int(np.ceil(300 * 16_000 / len(samples))))
    audio, keywords, output = tmp_path / "talk.flac", tmp_path / "keywords.txt", tmp_path / "talk.json"
    soundfile.write(audio, samples, 16_000)
    keywords.write_text("emily\nwozniak\n")
    given = ["--keywords", str(keywords), "--model", str(corpus.model), "--max_new_tokens", "8"]
    given += ["--prune-adapter", str(prune_adapter), "--asr-adapter", str(asr_adapter)]
    sap2_here("transcribe", str(audio), *given, "--format", "json", "--output", str(output))
    transcript = json.loads(output.read_text(encoding="utf-8"))
    assert transcript["audio_seconds"] >= 300
    times = [time for segment in transcript["segments"] for time in (segment["start"], segment["end"])]
    assert times == sorted(times) and len(times) > 2 * 30
    assert all(segment["end"] - segment["start"] <= 8.001 for segment in transcript["segments"])
    spoken = sum(segment["end"] - segment["start"] for segment in transcript["segments"])
    assert 0.6 * transcript["audio_seconds"] < spoken <= transcript["audio_seconds"]
