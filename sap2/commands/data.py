"""``sap2 data NAME``, the same as ``python -m data_tools.NAME``: from a corpus to rows, and checks of rows."""

from __future__ import annotations

from collections.abc import Sequence

from sap2.commands.shared import Command, Parser, run_module, run_parser

TOOLS = {
    "slidespeech": Command("sap2.data.slidespeech", "SlideSpeech to utterances"),
    "librispeech": Command("sap2.data.librispeech", "LibriSpeech with biasing lists to utterances"),
    "talks": Command("sap2.data.talks", "your own talks and slides to utterances"),
    "build_prune": Command("sap2.data.build_prune", "utterances to rows of stage one: pick the spoken keywords"),
    "build_asr": Command("sap2.data.build_asr", "utterances to rows of stage two: transcribe with keywords"),
    "build_joint": Command("sap2.data.build_joint", "utterances to rows of both stages in one reply"),
    "build_terms": Command("sap2.data.build_terms", "utterances to rows of the retriever: words, phrases, terms"),
    "build_curriculum": Command("sap2.data.build_curriculum", "utterances to rows whose lists grow"),
    "extract_predicted_keywords": Command(
        "sap2.data.extract_predicted_keywords", "stage one's result into the rows of stage two"
    ),
    "augment": Command("sap2.data.augment", "noisy copies of recordings, for training or as test sets"),
    "check": Command("sap2.data.check", "every problem of row files, before training"),
}


def add_arguments(parser: Parser) -> None:
    """The tools, each with its own options."""
    parser.add_commands(TOOLS, "NAME")
    parser.epilog = f"{parser.prog} NAME --help shows the options of a tool."


def run_tool(name: str, argv: Sequence[str] | None = None) -> int:
    """``python -m data_tools.NAME``; returns the exit code."""
    return run_module(TOOLS[name].module, f"python -m data_tools.{name}", argv)


def list_tools(argv: Sequence[str] | None = None) -> int:
    """``python -m data_tools``: the list of tools, or ``NAME`` and its options; returns the exit code."""
    parser = Parser(prog="python -m data_tools", description="From a corpus to rows, and checks of rows.")
    add_arguments(parser)
    return run_parser(parser, argv)
