"""``sap2 serve``: transcription over HTTP, as OpenAI's clients ask for it."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING

from sap2.commands.pipeline import add_model_arguments
from sap2.commands.shared import positive
from sap2.errors import InputError, print_note
from sap2.serve.options import MIB, Limits, ServeOptions

if TYPE_CHECKING:
    from sap2.pipeline.sharing import Lanes

KEY_VARIABLE = "SAP2_API_KEY"
_SOCKET_PLACE = 107 - len("/sap2-serve-12345678/") - 36
"""Letters of the folder below which vLLM's sockets lie at most: Linux allows 107 for their paths."""
_LOOPBACK = ("127.0.0.1", "localhost", "::1")
_OPTIONS = (
    *("stages", "batch_size", "max_batch_tokens", "max_new_tokens", "max_segment_seconds", "vad", "case"),
    *("guard_leaks", "correct_keywords"),
    *("torch_dtype", "attn_impl", "device", "engine", "engine_args"),
)
"""Arguments of the command that are arguments of the transcriber."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of ``sap2 serve``."""
    add_model_arguments(parser)
    # banks have names here, and there may be several
    bank = parser._option_string_actions["--term-bank"]
    bank.nargs, bank.metavar, bank.type = "+", "NAME=FILE", str
    bank.help = "terms that a request may have looked for, by the name that it gives (term_bank)"
    server = parser.add_argument_group("server")
    limits = parser.add_argument_group("limits")
    server.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s, this machine)")
    server.add_argument("--port", type=int, default=8000, help="port to listen on; 0: any (default: %(default)s)")
    server.add_argument(
        "--api-key", metavar="KEY", help=f"that callers must show (default: ${KEY_VARIABLE}; none: anyone may ask)"
    )
    server.add_argument(
        "--served-model-name", nargs="+", metavar="NAME", help="names of the model (default: the last part of --model)"
    )
    server.add_argument(
        "--drain-seconds",
        type=float,
        default=300.0,
        metavar="S",
        help="how long SIGTERM waits for what runs (default: %(default)g)",
    )
    server.add_argument(
        "--temp-dir", metavar="DIR", help="where the private folder for uploads is made (default: $TMPDIR or /var/tmp)"
    )
    server.add_argument(
        "--max-segment-seconds", type=float, metavar="S", help="longest piece that is transcribed at once"
    )
    server.add_argument("--vad", choices=("silero", "energy"), help="what finds the speech (default: silero)")
    server.add_argument(
        "--workers", type=positive, default=2, metavar="N", help="processes that decode uploads (default: %(default)s)"
    )
    _add_limits(limits)


def _add_limits(limits: argparse._ArgumentGroup) -> None:
    default = Limits()
    for flag, value, what in (
        ("--max-upload-mib", default.upload_bytes // MIB, "of a request, in MiB"),
        ("--max-audio-minutes", int(default.audio_seconds // 60), "of a recording, in minutes"),
        ("--max-pages", default.pages, "of a deck, in pages"),
        ("--max-megapixels", default.pixels // 1_000_000, "of a picture, in million pixels"),
        ("--max-requests", default.requests, "of requests that are served or wait; more are answered with 429"),
    ):
        limits.add_argument(flag, type=positive, default=value, metavar="N", help=f"most {what} (default: %(default)s)")


def run(args: argparse.Namespace) -> None:
    """Serve until SIGTERM or Ctrl-C."""
    options, place = options_of(args), args.temp_dir or _place()
    if args.engine == "vllm" and len(place) > _SOCKET_PLACE:
        raise InputError(
            f"--temp-dir {place} has {len(place)} letters; allowed with --engine vllm, whose sockets lie there: "
            f"up to {_SOCKET_PLACE}"
        )
    from sap2.serve.server import bind, serve

    bound = bind(args.host, args.port)
    if args.host not in _LOOPBACK and options.api_key is None:
        print_note(f"--host {args.host} without --api-key: anyone who reaches this machine may use the server")
    serve(options, bound, lambda: _load(args), place, args.drain_seconds)


def options_of(args: argparse.Namespace) -> ServeOptions:
    """The options of parsed arguments.

    Raises:
        InputError: they are not allowed.
    """
    if not 0 <= args.port < 1 << 16:
        raise InputError(f"--port {args.port}: allowed: 0 to 65535")
    limits = Limits(
        upload_bytes=args.max_upload_mib * MIB,
        audio_seconds=args.max_audio_minutes * 60.0,
        pages=args.max_pages,
        pixels=args.max_megapixels * 1_000_000,
        requests=args.max_requests,
    )
    return ServeOptions(
        names=tuple(args.served_model_name or [Path(args.model).name or args.model]),
        banks=_banks(args.term_bank or []),
        api_key=args.api_key or os.environ.get(KEY_VARIABLE) or None,
        limits=limits,
        batch_size=args.batch_size,
        max_batch_tokens=args.max_batch_tokens,
        workers=args.workers,
        vad=args.vad,
        hosts=frozenset({"localhost", "127.0.0.1", "[::1]"}) if args.host in _LOOPBACK else None,
    )


def _banks(given: list[str]) -> dict[str, str]:
    banks: dict[str, str] = {}
    for one in given:
        name, equals, file = one.partition("=")
        if not equals or not name or not file or name in banks:
            raise InputError(f"--term-bank {one}: allowed: NAME=FILE, each name once")
        if not Path(file).is_file():
            raise InputError(f"--term-bank {one}: no such file")
        banks[name] = file
    return banks


def _place() -> str:
    from sap2.audio_samples import temporary_folder

    return temporary_folder()


def _load(args: argparse.Namespace) -> Lanes:
    from sap2.pipeline.pruners import PruneOptions
    from sap2.pipeline.sharing import Lanes
    from sap2.pipeline.transcriber import Transcriber

    prune = PruneOptions(args.pruner, args.prune_top, args.prune_threshold, None)
    options = {name: getattr(args, name) for name in _OPTIONS}
    return Lanes(Transcriber(args.model, args.prune_adapter, args.asr_adapter, prune=prune, **options), prune)
