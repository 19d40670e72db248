"""``sap2 transcribe``: recordings and their slides to text or subtitles."""

from __future__ import annotations

import argparse
import contextlib
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sap2.commands.pipeline import add_model_arguments
from sap2.commands.shared import add_slide_options, positive
from sap2.errors import InputError
from sap2.files import STDOUT, atomic_write, check_writable, has_own_name, is_standard_output
from sap2.pipeline.cues import Layout
from sap2.pipeline.report import again_line, corrected_line
from sap2.pipeline.subtitles import FORMATS, format_transcript
from sap2.rowfiles import open_writer, row_format
from sap2.rows import Row

if TYPE_CHECKING:
    from sap2.pipeline.transcriber import Transcriber
    from sap2.pipeline.types import Request, Transcript

_OPTIONS = (
    *("stages", "batch_size", "max_batch_tokens", "max_new_tokens", "max_segment_seconds", "vad", "case", "spelling"),
    *("guard_leaks", "correct_keywords"),
    *("torch_dtype", "attn_impl", "device", "engine", "engine_args"),
)
"""Arguments of the command that are arguments of the transcriber."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of ``sap2 transcribe``."""
    parser.add_argument("audio", nargs="+", help="recordings of any length, audio or video")
    add_recording_arguments(parser)
    output = parser.add_argument_group("output")
    output.add_argument(
        "--spelling",
        choices=("keywords", "model"),
        default="keywords",
        help="how keywords are spelled in the transcript: as in the list or on the slides, or as the model wrote them "
        "(default: %(default)s)",
    )
    _add_output(output)


def add_recording_arguments(parser: argparse.ArgumentParser) -> None:
    """The keywords of a recording, how it is cut, and the model that hears it."""
    slides = parser.add_argument_group("slides")
    audio = parser.add_argument_group("audio")
    add_model_arguments(parser)
    slides.add_argument(
        "--keywords",
        metavar="SOURCE",
        help=".txt with a keyword a line, slides (.pdf, .pptx, .md, pictures or a folder of them), or 'emily, wozniak'",
    )
    slides.add_argument(
        "--manifest", metavar="FILE", help="rows with audio, start, end, slide: which slide was shown when"
    )
    slides.add_argument("--max-keywords", type=int, metavar="N", help="keywords of a deck at most (0: all)")
    add_slide_options(slides)
    slides.add_argument(
        "--ocr",
        choices=("auto", "never", "always"),
        default="auto",
        help="when to read pictures of slides (default: where a page has no text)",
    )
    audio.add_argument(
        "--max-segment-seconds",
        type=float,
        metavar="S",
        help="longest piece that is transcribed at once (default: what the model hears, 30 s)",
    )
    audio.add_argument(
        "--vad",
        choices=("silero", "energy"),
        help="what finds the speech (default: silero, a neural network; energy where that cannot be loaded)",
    )


def _add_output(parser: argparse._ArgumentGroup) -> None:
    default = Layout()
    parser.add_argument(
        "--output", metavar="FILE", help="where the transcript of one recording goes (default: -, standard output)"
    )
    parser.add_argument("--output-dir", metavar="DIR", help="a file for each recording, with its name")
    parser.add_argument(
        "--format", choices=FORMATS, help="format of the transcript (default: by the name of the output, else txt)"
    )
    parser.add_argument(
        "--rows", metavar="FILE", help="rows with id, audio, start, end and text of every segment, as a manifest"
    )
    parser.add_argument(
        "--max-line-width",
        type=positive,
        metavar="N",
        default=default.max_line_width,
        help="longest line of a subtitle, in characters (default: %(default)s)",
    )
    parser.add_argument(
        "--max-line-count",
        type=positive,
        metavar="N",
        default=default.max_line_count,
        help="most lines of a subtitle (default: %(default)s)",
    )
    parser.add_argument(
        "--max-cue-seconds",
        type=float,
        default=default.max_seconds,
        metavar="S",
        help="longest time that a subtitle is shown (default: %(default)s)",
    )
    parser.add_argument(
        "--word-timestamps",
        action="store_true",
        help="times of words: in json, and srt and vtt follow them (needs a checkpoint with a spotter)",
    )
    parser.add_argument(
        "--highlight-words", action="store_true", help="srt, vtt: <u> around each word while it is said"
    )
    parser.add_argument("--mark-keywords", action="store_true", help="vtt: <b> around keywords that were used")


def run(args: argparse.Namespace) -> int:
    """Transcribe, and write each transcript as soon as it is there."""
    if args.max_cue_seconds <= 0:
        raise InputError(f"--max-cue-seconds {args.max_cue_seconds:g}: allowed: above 0")
    layout = Layout(
        args.max_line_width, args.max_line_count, args.max_cue_seconds, args.mark_keywords, args.highlight_words
    )
    targets = plan_outputs(args)
    requests = [make_request(args, audio) for audio in args.audio]
    with load_transcriber(args) as transcriber, _rows_writer(args.rows) as write_row:
        options = {"word_timestamps": True} if _wants_words(args, transcriber, {f for _, f in targets}) else {}
        transcripts = transcriber.transcribe(iter(requests), **options)
        for audio, (path, format), transcript in zip(args.audio, targets, transcripts, strict=True):
            if path is not None:
                write_or_print(path, format_transcript(transcript, format, layout))
            for row in segment_rows(audio, transcript):
                write_row(row)
            print(_summary(transcript, audio if len(requests) > 1 else None), file=sys.stderr)
    return 0


def _wants_words(args: argparse.Namespace, transcriber: Transcriber, formats: set[str]) -> bool:
    """Whether words get times: where they are asked for, and the model has what it needs.

    Raises:
        InputError: it has not, and an output is nothing without them.
    """
    needed = "--format ctm" if "ctm" in formats else "--highlight-words" if args.highlight_words else None
    if needed:
        transcriber.check_word_times(needed)
        return True
    if args.word_timestamps and not transcriber.times_words:
        print(
            "--word-timestamps: the model has no trained spotter (--sap_spotter true); segments have times, words none",
            file=sys.stderr,
        )
    return args.word_timestamps and transcriber.times_words


def plan_outputs(args: argparse.Namespace) -> list[tuple[str | None, str]]:
    """The output of each recording and its format; an output of None: only rows are written.

    Raises:
        InputError: options that do not go together, or two recordings with one output.
        OSError: an output cannot be written.
    """
    if args.output is not None and (args.output_dir is not None or len(args.audio) > 1):
        raise InputError("--output is for one recording; allowed for several: --output-dir, --rows")
    if args.output is not None:
        check_writable(args.output)
    if args.rows is not None:
        row_format(args.rows)
        check_writable(args.rows)
    if args.output_dir is None:
        if len(args.audio) > 1 and args.rows is None:
            raise InputError(f"{len(args.audio)} recordings need --output-dir DIR, or --rows FILE")
        output = None if args.rows is not None and args.output is None else args.output or STDOUT
        targets = [(output, _format(output or STDOUT, args.format))] * len(args.audio)
    else:
        format = args.format or "txt"
        targets = [(str(Path(args.output_dir) / f"{Path(audio).stem}.{format}"), format) for audio in args.audio]
    _refuse_repeats(args.audio)
    for path in dict.fromkeys(path for path, _ in targets if path is not None):
        check_writable(path)
    return targets


def _refuse_repeats(audios: list[str]) -> None:
    """Refuse recordings that would overwrite each other's output and have the same ids."""
    names: dict[str, str] = {}
    for audio in audios:
        other, names[Path(audio).stem] = names.get(Path(audio).stem), audio
        if other is not None:
            raise InputError(f"{other} and {audio} have the same name; allowed: recordings of different names")


def _format(output: str, asked: str | None) -> str:
    if not has_own_name(output):
        return asked or "txt"
    suffix = Path(output).suffix.removeprefix(".").lower()
    if suffix not in FORMATS and asked is None:
        raise InputError(f"--output {output}: allowed: a name that ends with .{', .'.join(FORMATS)}, or --format")
    if suffix in FORMATS and asked not in (None, suffix):
        raise InputError(f"--output {output} and --format {asked} contradict each other; one of them is enough")
    return asked or suffix


def make_request(args: argparse.Namespace, audio: str) -> Request:
    """The recording with its keywords. The slides and the audio are looked at before the model is loaded."""
    from sap2.audio import probe_seconds
    from sap2.pipeline.types import Request
    from sap2.slides.sources import KeywordOptions, read_keywords, read_slide_times

    cap = {} if args.max_keywords is None else {"max_keywords": args.max_keywords}
    options = KeywordOptions(
        language=args.language, common_words=args.common_words, ocr=args.ocr, notes=args.notes, **cap
    )
    if args.max_keywords is not None and args.max_keywords < 0:
        raise InputError(f"--max_keywords {args.max_keywords}: allowed: from 0")
    probe_seconds(audio)
    if args.manifest is not None:
        return Request(audio, slides=read_slide_times(args.manifest, audio, args.keywords, options))
    return Request(audio, read_keywords(args.keywords, options) if args.keywords else ())


def load_transcriber(args: argparse.Namespace) -> Transcriber:
    """The transcriber that the arguments ask for."""
    from sap2.pipeline.pruners import PruneOptions
    from sap2.pipeline.transcriber import Transcriber

    options = {name: getattr(args, name) for name in _OPTIONS}
    prune = PruneOptions(args.pruner, args.prune_top, args.prune_threshold, args.term_bank)
    transcriber = Transcriber(args.model, args.prune_adapter, args.asr_adapter, prune=prune, **options, progress=True)
    if transcriber.bank is not None:
        print(f"{args.term_bank}: {transcriber.bank}", file=sys.stderr)
    return transcriber


def segment_rows(audio: str, transcript: Transcript) -> Iterator[Row]:
    """The segments of a transcript as rows of a manifest (:mod:`sap2.slides.manifest`)."""
    name = re.sub(r"[^\w.-]+", "_", Path(audio).stem).lstrip(".") or "audio"
    path = str(Path(audio).resolve())
    for number, segment in enumerate(transcript.segments, 1):
        times: Row = {"start": segment.start, "end": segment.end}
        yield {"id": f"{name}_{number:04}", "audio": path, **times, "text": segment.text, "session": name}


@contextlib.contextmanager
def _rows_writer(path: str | None) -> Iterator[Callable[[Row], Any]]:
    if path is None:
        yield lambda row: None
        return
    with open_writer(path) as write:
        yield write


def write_or_print(path: str, text: str) -> None:
    """Write a text; where that fails, print it, so that hours of computing are not lost, and raise the error.

    Raises:
        OSError: it could not be written.
    """
    try:
        with atomic_write(path) as stream:
            stream.write(text)
    except BrokenPipeError:
        raise
    except OSError:
        if not is_standard_output(path):
            print(f"{path} could not be written; this is its text:", file=sys.stderr)
            sys.stdout.write(text)
            sys.stdout.flush()
        raise


def _summary(transcript: Transcript, name: str | None) -> str:
    picked = ", ".join(transcript.picked_keywords) or "none"
    leaks = [segment.leak for segment in transcript.segments if segment.leak is not None]
    again = corrected_line(sum(len(segment.corrections) for segment in transcript.segments))
    again += again_line(len(leaks), sum(leak["replaced"] for leak in leaks))
    return (
        f"{f'{name}: ' if name else ''}{transcript.audio_seconds:.1f} s of audio, {len(transcript.segments)} segments, "
        f"{sum(transcript.seconds.values()):.1f} s of computing; audio tower runs a segment: "
        f"{transcript.audio_tower_runs}{again}; keywords used: {picked}"
    )
