"""``sap2 transcribe``: a recording and its slides to text or subtitles."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

from sap2.commands.pipeline import add_model_arguments
from sap2.commands.shared import add_slide_options
from sap2.errors import InputError
from sap2.files import STDOUT, atomic_write, check_writable, is_standard_output
from sap2.pipeline.subtitles import FORMATS, format_transcript

if TYPE_CHECKING:
    from sap2.pipeline.types import Request, Transcript


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of ``sap2 transcribe``."""
    parser.add_argument("audio", help="recording or video of any length and format")
    add_model_arguments(parser)
    parser.add_argument(
        "--keywords",
        metavar="SOURCE",
        help=".txt with a keyword a line, slides (.pdf, .pptx, .md, pictures or a folder of them), or 'emily, wozniak'",
    )
    parser.add_argument(
        "--manifest", metavar="FILE", help="rows with audio, start, end, slide: which slide was shown when"
    )
    parser.add_argument("--max-keywords", type=int, metavar="N", help="keywords of a deck at most (0: all)")
    add_slide_options(parser)
    parser.add_argument("--ocr", choices=("auto", "never", "always"), default="auto", help="of PDF pages without text")
    parser.add_argument("--max-segment-seconds", type=float, metavar="S", help="default: what the model hears, 30 s")
    parser.add_argument(
        "--vad",
        choices=("silero", "energy"),
        help="what finds the speech (default: silero, a neural network; energy where that cannot be loaded)",
    )
    parser.add_argument(
        "--spelling",
        choices=("keywords", "model"),
        default="keywords",
        help="of keywords in the transcript: as in the list or on the slides, or as the model wrote them "
        "(default: %(default)s)",
    )
    parser.add_argument("--format", choices=FORMATS, default="txt", help="default: %(default)s")
    parser.add_argument("--output", metavar="FILE", help="default: standard output")


def transcribe_file(args: argparse.Namespace) -> Transcript:
    """Transcribe one recording.

    Raises:
        ValueError: bad input; the slides and the audio are looked at before the model is loaded.
    """
    request = _request(args)
    from sap2.audio import probe_seconds
    from sap2.pipeline.pruners import PruneOptions
    from sap2.pipeline.transcriber import Transcriber

    probe_seconds(args.audio)
    names = [
        "stages",
        "batch_size",
        "max_batch_tokens",
        "max_new_tokens",
        "max_segment_seconds",
        "vad",
        "case",
        "spelling",
    ]
    names += ["torch_dtype", "attn_impl", "device", "engine", "engine_args"]
    options = {name: getattr(args, name) for name in names}
    prune = PruneOptions(args.pruner, args.prune_top, args.prune_threshold, args.term_bank)
    with Transcriber(
        args.model, args.prune_adapter, args.asr_adapter, prune=prune, **options, progress=True
    ) as transcriber:
        if transcriber.bank is not None:
            print(f"{args.term_bank}: {transcriber.bank}", file=sys.stderr)
        return transcriber.transcribe(request)


def _request(args: argparse.Namespace) -> Request:
    from sap2.pipeline.types import Request
    from sap2.slides.sources import KeywordOptions, read_keywords, read_slide_times

    cap = {} if args.max_keywords is None else {"max_keywords": args.max_keywords}
    options = KeywordOptions(
        language=args.language, common_words=args.common_words, ocr=args.ocr, notes=args.notes, **cap
    )
    if args.max_keywords is not None and args.max_keywords < 0:
        raise InputError(f"--max_keywords {args.max_keywords}: allowed: from 0")
    if args.manifest is not None:
        return Request(args.audio, slides=read_slide_times(args.manifest, args.audio, args.keywords, options))
    return Request(args.audio, read_keywords(args.keywords, options) if args.keywords else ())


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


def run(args: argparse.Namespace) -> int:
    """Transcribe, and write the transcript in the format asked for."""
    output = STDOUT if args.output is None else args.output
    check_writable(output)
    transcript = transcribe_file(args)
    write_or_print(output, format_transcript(transcript, args.format))
    picked = ", ".join(transcript.picked_keywords) or "none"
    print(
        f"{transcript.audio_seconds:.1f} s of audio, {len(transcript.segments)} segments, "
        f"{sum(transcript.seconds.values()):.1f} s of computing; audio tower runs a segment: "
        f"{transcript.audio_tower_runs}; keywords used: {picked}",
        file=sys.stderr,
    )
    return 0
