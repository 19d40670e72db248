"""From the synthetic talks in SlideSpeech's layout to the rows of both stages, and what ms-swift makes of them."""

import copy

import pytest

from sap2.data.build_asr import build_asr
from sap2.data.build_joint import build_joint
from sap2.data.build_prune import build_prune
from sap2.data.check import CheckOptions, check_file
from sap2.data.extract_predicted_keywords import extract_predicted_keywords
from sap2.data.row_checks import audio_facts, schema_problems
from sap2.data.slidespeech import SlideSpeechOptions, convert_slidespeech
from sap2.data.token_counts import TokenCounter
from sap2.data.utterances import read_utterances
from sap2.prompts import parse_prune_reply
from sap2.rowfiles import read_rows, write_rows
from sap2.rows import row_keywords
from sap2.text import contains_words


@pytest.fixture(scope="module")
def talks(tmp_path_factory):
    pytest.importorskip("espeakng_loader")
    from sap2.tiny.plan import TalksOptions
    from sap2.tiny.talks import make_talks

    folder = tmp_path_factory.mktemp("talks")
    root = make_talks(folder / "talks", TalksOptions(talks=3))
    for split in ("train", "dev", "test"):
        options = SlideSpeechOptions(slides=2)
        convert_slidespeech(root, split, folder / f"{split}.jsonl", folder / "audio", options)
    return folder


def rows_of(path):
    return [row for _, row in read_rows(path)]


def test_both_stages(talks):
    for split in ("train", "dev", "test"):
        source = talks / f"{split}.jsonl"
        utterances = [utterance for _, utterance in read_utterances(source)]
        assert utterances
        assert all(utterance.keywords and utterance.text for utterance in utterances)
        build_prune(source, talks / "prune.json")
        build_asr(source, talks / "asr.json")
        build_joint(source, talks / "joint.json")
        for name in ("prune", "asr", "joint"):
            report = check_file(talks / f"{name}.json", CheckOptions())
            assert report.problems == []
            assert report.rows == len(utterances)
        for utterance, row in zip(utterances, rows_of(talks / "prune.json"), strict=True):
            for keyword in parse_prune_reply(row["messages"][1]["content"]):
                assert contains_words(utterance.text.split(), keyword.split())
        # stage one's own targets as its predictions: stage two sees the oracle's keywords
        results = [
            {"response": row["messages"][1]["content"], "audios": row["audios"]}
            for row in rows_of(talks / "prune.json")
        ]
        write_rows(talks / "result.jsonl", results[::-1])
        extract_predicted_keywords(talks / "result.jsonl", talks / "asr.json", talks / "predicted.json")
        build_asr(source, talks / "oracle.json", "oracle")
        assert rows_of(talks / "predicted.json") == rows_of(talks / "oracle.json")
        assert any(row_keywords(row) for row in rows_of(talks / "oracle.json"))


@pytest.mark.e2e
def test_ms_swift_loads_the_rows_and_counts_the_same_tokens(talks):
    from swift import get_processor, get_template
    from swift.dataset import load_dataset

    import sap2.ms_swift.register  # noqa: F401
    from sap2.tiny.checkpoint import make_tiny

    model = str(make_tiny(talks / "model"))
    template = get_template(get_processor(model, model_type="sap_qwen2_audio"))
    template.set_mode("train")
    counter = TokenCounter(model)
    for build, name in ((build_prune, "prune"), (build_asr, "asr")):
        build(talks / "dev.jsonl", talks / f"{name}.json")
        rows = rows_of(talks / f"{name}.json")
        data, _ = load_dataset(str(talks / f"{name}.json"), num_proc=1, strict=True)
        assert [row["messages"] for row in data] == [row["messages"] for row in rows]
        for row in rows[:5]:
            parts, _ = schema_problems(row)
            counts = counter.count(parts, [audio_facts(audio).seconds for audio in parts.audios])
            assert len(template.encode(copy.deepcopy(row))["input_ids"]) == counts.after
