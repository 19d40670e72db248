"""Send an audio file and keywords to ``swift deploy`` and print the transcript.

    python examples/deploy/client.py talk.flac --keywords "emily, wozniak"
    python examples/deploy/client.py talk.flac --keywords "emily, wozniak" --prune-url http://127.0.0.1:8001/v1

With --prune-url, stage one picks from the keywords first. The audio is at most what the model hears (30 s).
Needs the ``openai`` package, which comes with ms-swift.
"""

from __future__ import annotations

import argparse
import base64
import sys
from pathlib import Path

from openai import OpenAI, OpenAIError

from sap2.commands.shared import Parser, run_parser
from sap2.errors import InputError
from sap2.prompts import asr_prompt, parse_keywords, parse_prune_reply, prune_prompt
from sap2.text import choose_listed, clean_keywords


def ask(url: str, audio: Path, prompt: str, api_key: str = "none") -> str:
    """The reply of a server to one audio and one prompt; greedy.

    Raises:
        OpenAIError: the server cannot be reached, or refuses the request; the message says why.
    """
    client = OpenAI(base_url=url, api_key=api_key)
    data = base64.b64encode(audio.read_bytes()).decode()
    content = [
        {"type": "audio_url", "audio_url": {"url": f"data:audio/{audio.suffix[1:]};base64,{data}"}},
        {"type": "text", "text": prompt},
    ]
    chat = client.chat.completions.create(
        model=client.models.list().data[0].id, messages=[{"role": "user", "content": content}], temperature=0
    )
    return chat.choices[0].message.content


def transcribe(audio: Path, keywords: list[str], url: str, prune_url: str | None = None) -> str:
    """The transcript of one audio; ``keywords`` as stage two gets them, or with ``prune_url`` the list to pick from."""
    if prune_url is not None:
        reply = ask(prune_url, audio, prune_prompt(keywords))
        keywords, _ = choose_listed(parse_prune_reply(reply), keywords)
        print(f"keywords picked: {', '.join(keywords) or 'none'}", file=sys.stderr)
    return ask(url, audio, asr_prompt(keywords))


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    parser = Parser(prog="client.py", description=__doc__)
    parser.add_argument("audio", type=Path, help="wav, flac, mp3 or ogg")
    parser.add_argument("--keywords", default="", help="with commas between")
    parser.add_argument("--url", default="http://127.0.0.1:8000/v1", help="server of stage two (default: %(default)s)")
    parser.add_argument("--prune-url", help="server of stage one")
    parser.set_defaults(run=run)
    return run_parser(parser, argv)


def run(args: argparse.Namespace) -> None:
    """Ask, and print the transcript."""
    try:
        print(transcribe(args.audio, clean_keywords(parse_keywords(args.keywords)), args.url, args.prune_url))
    except OpenAIError as error:
        raise InputError(f"{args.url}: {error}") from error


if __name__ == "__main__":
    sys.exit(main())
