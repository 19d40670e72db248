"""LibriSpeech and the biasing lists of Le et al. 2021, on a miniature corpus in the published formats."""

import json
import subprocess
import sys
from collections import Counter

import numpy as np
import pytest
import soundfile as sf
from commands import tool
from hypothesis import given
from hypothesis import strategies as st

from sap2.data import librispeech as module
from sap2.data.biasing import derive_common_words, draw_biasing_list, rare_words, read_biasing
from sap2.data.librispeech import LibriSpeechOptions, convert_librispeech
from sap2.data.utterances import read_utterances

TEXTS = {
    "84-121123-0000": "GO DO YOU HEAR THE NOIRTIER",
    "84-121123-0001": "THE THE OF VILLEFORT'S AND",
    "84-121550-0000": "OF THE AND",
    "174-50561-0000": "FORGOTTEN THE MONTALAIS",
}
COMMON = ["the", "of", "and", "go", "do", "you", "hear"]
POOL = [f"rare{i}" for i in range(50)]


@pytest.fixture
def corpus(tmp_path):
    root = tmp_path / "LibriSpeech" / "dev-clean"
    chapters = {}
    for name, text in TEXTS.items():
        speaker, chapter, _ = name.split("-")
        folder = root / speaker / chapter
        folder.mkdir(parents=True, exist_ok=True)
        sf.write(folder / f"{name}.flac", np.zeros(1600), 16_000)
        chapters.setdefault(folder / f"{speaker}-{chapter}.trans.txt", []).append(f"{name} {text}\n")
    for path, lines in chapters.items():
        path.write_text("".join(lines))
    (tmp_path / "common.txt").write_text("\n".join(COMMON) + "\n")
    (tmp_path / "rare.txt").write_text("\n".join(POOL) + "\nthe\nnoirtier\n")
    return tmp_path


def convert(corpus, split="dev-clean", source=None, **options):
    for name in ("common_words", "rare_words"):
        if options.get(name, True) is True:
            options[name] = str(corpus / f"{name.split('_')[0]}.txt")
    options = {"distractors": (5, 5), **options}
    output = corpus / "out.jsonl"
    report = convert_librispeech(source or str(corpus), split, output, LibriSpeechOptions(**options))
    return report, {u.id: u for _, u in read_utterances(output)}


def test_lists_of_rare_words_and_distractors(corpus):
    report, utterances = convert(corpus, distractors=(10, 10), no_true_share=0.0)
    assert sorted(utterances) == sorted(TEXTS)
    first = utterances["84-121123-0000"]
    assert first.text == "go do you hear the noirtier"
    assert first.session == "84"
    assert first.audio == str(corpus / "LibriSpeech/dev-clean/84/121123/84-121123-0000.flac")
    for utterance in utterances.values():
        true = set(utterance.text.split()) - set(COMMON)
        assert true <= set(utterance.keywords)
        assert len(set(utterance.keywords) - true) == 10
        assert list(utterance.keywords) == sorted(utterance.keywords)
        assert set(utterance.keywords).isdisjoint(set(utterance.text.split()) & set(COMMON))
    assert (report.utterances, report.without_true) == (4, 1)  # one row has no rare word


def test_some_lists_have_no_true_word(corpus):
    _, utterances = convert(corpus, distractors=(10, 10), no_true_share=1.0)
    for utterance in utterances.values():
        assert set(utterance.keywords).isdisjoint(utterance.text.split())
        assert len(utterance.keywords) == 10


def test_draws_by_seed(corpus):
    first = convert(corpus, distractors=(5, 20), seed=1)[1]
    assert convert(corpus, distractors=(5, 20), seed=1)[1] == first
    assert convert(corpus, distractors=(5, 20), seed=2)[1] != first


def test_word_lists_from_the_corpus_itself(corpus):
    options = {"common_words": None, "rare_words": None, "common_count": 3, "distractors": (1, 1), "no_true_share": 0.0}
    _, utterances = convert(corpus, **options)
    words = {word for utterance in utterances.values() for word in utterance.keywords}
    assert words.isdisjoint({"the", "of", "and"})
    assert "go" in words
    assert convert(corpus, common_from=("dev-clean",), **options)[1] == utterances


PUBLISHED = "".join(
    f"{name}\t{text.lower()}\t{json.dumps(rare)}\t{json.dumps(sorted({*rare, 'zebra', 'yak'}))}\n"
    for name, text in reversed(TEXTS.items())
    for rare in [sorted(set(text.lower().split()) - set(COMMON))]
)


def test_published_lists(corpus):
    (corpus / "test-clean.biasing_2.tsv").write_text(PUBLISHED)
    report, utterances = convert(corpus, biasing_list=str(corpus / "test-clean.biasing_2.tsv"))
    assert utterances["84-121123-0001"].keywords == ("villefort's", "yak", "zebra")
    assert report.without_true == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            PUBLISHED.replace("\t", " "),
            r"list\.tsv:1: 1 columns; a line is: id, text, rare words, list, with tabs",
        ),
        (PUBLISHED + PUBLISHED, r"list\.tsv:5: '174-50561-0000' occurs a second time, first at .*list\.tsv:1"),
        (
            PUBLISHED.replace('["villefort\'s"]', "villefort's"),
            r"list\.tsv:3: .* is not a JSON list of words",
        ),
        (PUBLISHED.replace('"zebra"]', "5]"), r"list\.tsv:1: .* is not a JSON list of words"),
        (PUBLISHED.replace('["villefort\'s"]', '["x"]'), r"list\.tsv:3: rare words that the list lacks: x"),
        (PUBLISHED.replace("forgotten", "forgetful", 1), r"list\.tsv:1: the text of '174-50561-0000' is not that of"),
        (PUBLISHED.split("\n", 1)[1], r"174-50561\.trans\.txt:1: '174-50561-0000' has no line in .*list\.tsv"),
        (PUBLISHED + "9-9-9\tx\t[]\t[]\n", r"list\.tsv: ids that the corpus lacks: 9-9-9"),
    ],
)
def test_bad_published_lists_are_refused_with_their_line(corpus, text, message):
    (corpus / "list.tsv").write_text(text)
    with pytest.raises(ValueError, match=message):
        convert(corpus, biasing_list=str(corpus / "list.tsv"))
    assert not (corpus / "out.jsonl").exists()


def test_bad_corpora(corpus):
    with pytest.raises(ValueError, match="no split 'train-clean-100', neither here nor in LibriSpeech/"):
        convert(corpus, "train-clean-100")
    trans = corpus / "LibriSpeech/dev-clean/84/121123/84-121123.trans.txt"
    text = trans.read_text()
    trans.write_text(text + "84-121123-0002\n")
    with pytest.raises(ValueError, match=r"84-121123\.trans\.txt:3: nothing after '84-121123-0002'"):
        convert(corpus)
    trans.write_text(text + "84-121123-0002 HI\n")
    with pytest.raises(ValueError, match=r"84-121123\.trans\.txt:3: no audio at .*84-121123-0002\.flac"):
        convert(corpus)
    (corpus / "LibriSpeech" / "empty").mkdir()
    with pytest.raises(ValueError, match=r"empty: no SPEAKER/CHAPTER/\*\.trans\.txt below it"):
        convert(corpus, "empty")


def test_too_few_rare_words(corpus):
    with pytest.raises(ValueError, match="100 distractors from 51 rare words"):
        convert(corpus, distractors=(100, 100))


# ---- through datasets


@pytest.fixture
def hub_copy(corpus):
    """A copy of the hub's data set: CONFIG/SPLIT/*.parquet with undecoded audio."""
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    rows = [
        {
            "id": name,
            "text": text,
            "audio": {"bytes": next(corpus.rglob(f"{name}.flac")).read_bytes(), "path": f"{name}.flac"},
        }
        for name, text in TEXTS.items()
    ]
    folder = corpus / "copy" / "clean" / "validation"
    folder.mkdir(parents=True)
    pq.write_table(pa.Table.from_pylist(rows), folder / "0000.parquet")
    return corpus / "copy"


def test_a_local_copy_through_datasets(corpus, hub_copy, monkeypatch):
    monkeypatch.setenv("HF_DATASETS_CACHE", str(corpus / "cache"))
    options = {"datasets_config": "clean", "audio_dir": str(corpus / "audio"), "distractors": (5, 5)}
    _, utterances = convert(corpus, "validation", source=str(hub_copy), **options)
    expected = {name: (u.text, u.keywords) for name, u in convert(corpus, distractors=(5, 5))[1].items()}
    assert {name: (u.text, u.keywords) for name, u in utterances.items()} == expected
    assert all(sf.info(u.audio).frames == 1600 for u in utterances.values())
    derived = convert(corpus, "validation", source=str(hub_copy), common_words=None, rare_words=None, common_count=3,
                      **{**options, "distractors": (1, 1)})[1]  # fmt: skip
    assert len(derived) == 4
    with pytest.raises(ValueError, match=r"audio out of datasets needs a folder \(--audio-dir\)"):
        convert(corpus, "validation", source=str(hub_copy), datasets_config="clean")


def test_reading_through_datasets_imports_no_torch(corpus, hub_copy):
    code = (
        "import sys; from sap2.data.librispeech import read_datasets\n"
        f"assert len(list(read_datasets({str(hub_copy)!r}, 'clean', 'validation', {str(corpus / 'a')!r}))) == 4\n"
        "print('torch' in sys.modules)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True,
                         env={**__import__("os").environ, "HF_DATASETS_CACHE": str(corpus / "cache")})  # fmt: skip
    assert run.stdout == "False\n"


# ---- the parts


def test_common_words_by_count_then_alphabet():
    assert derive_common_words(["B a", "c A b d", "a"], 3) == ["a", "b", "c"]
    assert rare_words("The x THE a", {"the"}) == ["a", "x"]


def test_the_published_list_of_common_words(tmp_path):
    (tmp_path / "all_words.count.txt").write_text("the\t570817\nand\t320837\n")
    assert module.read_words(tmp_path / "all_words.count.txt") == ["the", "and"]


@given(
    st.lists(st.sampled_from(POOL), max_size=8),
    st.integers(0, 20),
    st.integers(0, 20),
    st.floats(0, 1),
    st.integers(0, 9),
)
def test_every_drawn_list_is_a_biasing_list(words, low, more, share, seed):
    transcript = " ".join(words)
    drawn = draw_biasing_list("u", transcript, sorted(set(words)), POOL, (low, low + more), share, seed)
    true = set(words) & set(drawn)
    assert true in (set(), set(words))
    assert low <= len(drawn) - len(true) <= low + more
    assert drawn == sorted(set(drawn))


def test_the_share_of_useless_lists():
    useless = Counter("word" in draw_biasing_list(f"u{i}", "word", ["word"], POOL, (5, 5), 0.25) for i in range(400))
    assert 70 < useless[False] < 130


def test_read_biasing(tmp_path):
    (tmp_path / "x.tsv").write_text('a-1\thi noirtier\t["noirtier"]\t["noirtier", "x"]\n')
    entry = read_biasing(tmp_path / "x.tsv")["a-1"]
    assert (entry.text, entry.rare, entry.words) == ("hi noirtier", ["noirtier"], ["noirtier", "x"])


def test_command(corpus, capsys):
    arguments = [str(corpus), "--split", "dev-clean", "--output", str(corpus / "dev.jsonl")]
    words = ["--common-words", str(corpus / "common.txt"), "--rare-words", str(corpus / "rare.txt")]
    assert tool("librispeech", *arguments, *words, "--distractors", "5-20", "--seed", "3") == 0
    assert capsys.readouterr().out.startswith(f"{corpus / 'dev.jsonl'}: 4 utterances, ")
    for bad, message in (
        (["--distractors", "20-5"], "'20-5' is neither a number nor a range such as 50-200"),
        (["--common-words", "x", "--common-from", "y"], "two ways to the same list"),
        (["--datasets", "clean"], "--datasets needs --audio-dir"),
        (["--no-true-share", "2"], "'2' is not a share from 0 to 1"),
    ):
        assert tool("librispeech", *arguments, *bad) == 2
        assert message in capsys.readouterr().err
