"""The recipes from their first script to their last, on a small corpus in the corpus's own layout, with sap2-tiny."""

from __future__ import annotations

import json
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from types import SimpleNamespace

import pytest
from serving import free_port

from sap2.rowfiles import read_rows

from .conftest import environment

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1500)]

EXAMPLES = Path(__file__).parents[2] / "examples"
SMALL = {"MODEL": "sap2-tiny", "GPUS": "1", "BATCH": "2", "ACCUMULATION": "1", "STEPS_BETWEEN_SAVES": "2"}
SMALL |= {"DTYPE": "float32", "SLIDES": "2"}
FEW_STEPS = ("--max_steps", "4", "--dataloader_num_workers", "0", "--report_to", "none", "--check_model", "false")


def recipe(script: str, *flags: str, **variables: str) -> str:
    """Run a script of examples/ as a user does; its output."""
    done = subprocess.run(
        ["bash", EXAMPLES / script, *flags],
        env=environment(**{**SMALL, **variables}),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, f"{script} ended with {done.returncode}:\n{done.stdout[-4000:]}"
    return done.stdout


@pytest.fixture(scope="module")
def slidespeech(tmp_path_factory) -> SimpleNamespace:
    """Talks as SlideSpeech has them, and what the recipe made of them."""
    root = tmp_path_factory.mktemp("slidespeech")
    talks = ["--talks", "5", "--dev-talks", "1", "--test-talks", "2", "--slides", "2", "--utterances", "3"]
    make = [sys.executable, "-m", "sap2.cli", "make-talks", str(root / "corpus"), *talks, "--max-seconds", "3"]
    subprocess.run(make, check=True, capture_output=True)
    (root / "corpus" / "train").rename(root / "corpus" / "L95")
    where = {"CORPUS": str(root / "corpus"), "WORK": str(root / "work")}
    recipe("slidespeech/1_prepare.sh", **where)
    recipe("slidespeech/2_train_prune.sh", *FEW_STEPS, **where)
    recipe("slidespeech/3_train_asr.sh", *FEW_STEPS, **where)
    recipe("slidespeech/4_decode.sh", **where)
    return SimpleNamespace(root=root, work=root / "work", where=where)


def test_slidespeech_is_scored_by_session(slidespeech):
    printed = recipe("slidespeech/5_score.sh", **slidespeech.where)
    assert all(f"\nsession {talk}" in printed for talk in ("talk0004", "talk0005")) and "recall ceiling" in printed
    report = json.loads((slidespeech.work / "result" / "wer.json").read_text())
    assert set(report["systems"]) == {"unpruned", "sap2"}
    assert (slidespeech.work / "result" / "wer.html").stat().st_size > 10_000


def test_the_checkpoints_hold_the_papers_method(slidespeech):
    for stage in ("prune", "asr"):
        args = json.loads((slidespeech.work / stage / "checkpoint-4" / "args.json").read_text())
        assert (args["sap_pooling"], args["sap_window_size"], args["sap_num_heads"]) == ("attention", 2, 4)


def test_two_runs_of_ms_swift_give_the_same_text(slidespeech):
    recipe("slidespeech/4_decode_in_two_runs.sh", **slidespeech.where)
    rows = [
        {row["id"]: row["response"] for _, row in read_rows(slidespeech.work / "result" / name)}
        for name in ("test.jsonl", "two.jsonl")
    ]
    assert rows[0] == rows[1] and len(rows[0]) == 12


def test_a_training_goes_on(slidespeech, tmp_path):
    work = tmp_path / "work"
    shutil.copytree(slidespeech.work, work, ignore=shutil.ignore_patterns("asr", "result", "audio"))
    shutil.rmtree(work / "prune" / "checkpoint-4")
    recipe("slidespeech/resume.sh", **{**slidespeech.where, "WORK": str(work)})
    assert (work / "prune" / "checkpoint-4" / "adapter_model.safetensors").exists()


def test_the_joint_baseline(slidespeech):
    recipe("slidespeech/joint.sh", *FEW_STEPS, **slidespeech.where)
    assert len(list(read_rows(slidespeech.work / "result" / "test.joint.jsonl"))) == 12


def test_one_gpu(slidespeech, tmp_path):
    work = tmp_path / "work"
    shutil.copytree(slidespeech.work, work, ignore=shutil.ignore_patterns("asr", "prune", "result", "audio"))
    where = {**slidespeech.where, "WORK": str(work)}
    recipe("slidespeech_1gpu/train_prune.sh", *FEW_STEPS, **where)
    recipe("slidespeech_1gpu/train_asr.sh", *FEW_STEPS, **where)
    recipe("slidespeech_1gpu/decode.sh", **where)
    assert len(list(read_rows(work / "result" / "test.jsonl"))) == 12


@pytest.fixture(scope="module")
def librispeech(slidespeech, tmp_path_factory) -> dict[str, str]:
    """The same speech in LibriSpeech's layout, with the published kind of lists."""
    root = tmp_path_factory.mktemp("librispeech")
    lines = {row["id"]: row for _, row in read_rows(slidespeech.work / "test.utterances.jsonl")}
    lists = root / "biasing"
    (lists / "ref").mkdir(parents=True)
    (lists / "words").mkdir()
    splits = ("train-clean-100", "train-clean-360", "train-other-500", "dev-clean", "test-clean", "test-other")
    words = sorted({keyword for row in lines.values() for keyword in row["keywords"]})
    (lists / "words" / "all_rare_words.txt").write_text("".join(f"{word}\n" for word in words) + _other_words(40))
    (lists / "words" / "common_words_5k.txt").write_text("the\na\nof\nand\n")
    for number, split in enumerate(splits):
        folder = root / "LibriSpeech" / split / "1" / str(number)
        folder.mkdir(parents=True)
        transcripts, rows = [], []
        for index, row in enumerate(list(lines.values())[:4]):
            name = f"1-{number}-{index:04d}"
            shutil.copy(row["audio"], folder / f"{name}.flac")
            transcripts.append(f"{name} {row['text'].upper()}\n")
            spoken = [word for word in row["keywords"] if word in row["text"].split()]
            rows.append("\t".join([name, row["text"], json.dumps(spoken), json.dumps([*spoken, "other"])]) + "\n")
        (folder / f"1-{number}.trans.txt").write_text("".join(transcripts))
        if split.startswith("test"):
            (lists / "ref" / f"{split}.biasing_1000.tsv").write_text("".join(rows))
    return {
        "LIBRISPEECH": str(root / "LibriSpeech"),
        "BIASING": str(lists),
        "WORK": str(root / "work"),
        "DISTRACTORS": "5-20",
    }


def _other_words(count: int) -> str:
    return "".join(f"word{number:04d}\n" for number in range(count))


def test_librispeech(librispeech):
    recipe("librispeech/1_prepare.sh", **librispeech)
    recipe("librispeech/2_train.sh", *FEW_STEPS, "--save_steps", "4", "--eval_strategy", "no", **librispeech)
    printed = recipe("librispeech/3_decode_and_score.sh", **librispeech)
    assert printed.count("definition librispeech") == 2


def test_two_servers_and_a_client(slidespeech):
    """They answer, and when their script is told to end, nothing of them is left."""
    ports = [free_port(), free_port()]
    given = {"PRUNE_CHECKPOINT": str(slidespeech.work / "prune" / "checkpoint-4"), "PRUNE_PORT": str(ports[0])}
    given |= {"ASR_CHECKPOINT": str(slidespeech.work / "asr" / "checkpoint-4"), "ASR_PORT": str(ports[1])}
    script = ["bash", EXAMPLES / "deploy" / "serve.sh"]
    log = slidespeech.root / "serve.log"
    with (
        log.open("w") as stream,
        subprocess.Popen(script, env=environment(**given), stdout=stream, stderr=stream) as run,
    ):
        try:
            for port in ports:
                _wait_for(port, run, log)
            row = next(row for _, row in read_rows(slidespeech.work / "test.utterances.jsonl"))
            urls = [f"http://127.0.0.1:{port}/v1" for port in ports]
            client = [sys.executable, EXAMPLES / "deploy" / "client.py", row["audio"], "--keywords", *_comma(row)]
            client += ["--prune-url", urls[0], "--url", urls[1]]
            done = subprocess.run(client, env=environment(), capture_output=True, text=True, timeout=120, check=True)
            assert done.stdout.strip() and "keywords picked" in done.stderr
        finally:
            run.send_signal(signal.SIGTERM)
            assert run.wait(timeout=60) == 143
    for port in ports:
        with socket.socket() as probe:
            assert probe.connect_ex(("127.0.0.1", port)) != 0


def _comma(row: dict) -> list[str]:
    return [", ".join(row["keywords"])]


def _wait_for(port: int, run: subprocess.Popen, log: Path) -> None:
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline:
        assert run.poll() is None, log.read_text()[-3000:]
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/v1/models", timeout=5) as answer:
                assert json.load(answer)["data"]
                return
        except OSError:
            time.sleep(0.5)
    pytest.fail(f"no server at {port}:\n{log.read_text()[-3000:]}")
