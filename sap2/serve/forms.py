"""What a caller asks for: the fields of a transcription request, checked."""

from __future__ import annotations

import base64
import binascii
import dataclasses
import json
import re
from collections.abc import Sequence
from pathlib import Path

from sap2.errors import InputError
from sap2.pipeline.sharing import Way
from sap2.prompts import OTHER_SEPARATORS
from sap2.serve.decoding import Upload
from sap2.serve.errors import BAD_REQUEST, NOT_FOUND, TOO_LARGE, ApiError
from sap2.serve.multipart import Form, place_upload, shown_name
from sap2.serve.options import ServeOptions
from sap2.slides.common import common_words
from sap2.slides.keywords import extract_keywords
from sap2.tables import read_text

FORMATS = ("json", "text", "srt", "verbose_json", "vtt")
GRANULARITIES = ("word", "segment")
FIELDS = (
    *("model", "language", "prompt", "response_format", "timestamp_granularities", "stream", "temperature"),
    *("chunking_strategy", "include", "keywords", "slides", "manifest", "stages", "pruner", "term_bank"),
)
"""Fields of a transcription request that are text, or may be."""
INCLUDED = ("slides",)
_LISTS = {"timestamp_granularities", "include", "keywords", "slides"}
_DATA_URL = re.compile(r"data:[\w.+-]*/?[\w.+-]*(?:;[\w=.+-]+)*;base64,", re.A)
_FIRST_TEXT = 10_000
"""Numbers of files that come as text, so that they differ from those of files."""


@dataclasses.dataclass(frozen=True)
class Asked:
    """A transcription request.

    Attributes:
        file: the recording.
        format: of the answer.
        words, segments: whether ``verbose_json`` has them.
        stream: answer segment by segment.
        language: whose common words are no keywords of slides.
        keywords: those that were given, and those of the prompt.
        slides: decks.
        manifest: which slide was shown when, or None.
        way: through the stages.
        include: what else the answer holds, of :data:`INCLUDED`.
    """

    file: Upload
    format: str = "json"
    words: bool = False
    segments: bool = True
    stream: bool = False
    language: str = "en"
    keywords: Sequence[str] = ()
    slides: Sequence[Upload] = ()
    manifest: Upload | None = None
    way: Way = dataclasses.field(default_factory=Way)
    include: Sequence[str] = ()


def read_asked(form: Form, options: ServeOptions, folder: Path) -> Asked:
    """What a form asks for.

    Args:
        folder: where files go that come as text.

    Raises:
        ApiError: a field is unknown, missing, or has a value that is not allowed.
    """
    _check_fields(form)
    texts = {name: values[-1] for name, values in form.texts.items() if name not in _LISTS}
    check_model(texts.get("model"), options)
    if not form.uploads("file"):
        raise ApiError(BAD_REQUEST, "the field file is missing: the recording to transcribe", "file")
    format = _choice("response_format", texts.get("response_format") or "json", FORMATS)
    granularities = [
        _choice("timestamp_granularities", one, GRANULARITIES) for one in _list(form, "timestamp_granularities")
    ]
    if granularities and format != "verbose_json":
        raise ApiError(
            BAD_REQUEST, "timestamp_granularities need response_format verbose_json", "timestamp_granularities"
        )
    stream = _true(texts.get("stream", ""))
    language = _language(texts.get("language") or "en")
    _refuse_sampling(texts)
    return Asked(
        file=form.uploads("file")[0],
        format=format,
        words="word" in granularities,
        segments=not granularities or "segment" in granularities,
        stream=stream,
        language=language,
        keywords=[*_keywords(form), *prompt_keywords(texts.get("prompt", ""), language)],
        slides=_slides(form, options, folder),
        manifest=_manifest(form, texts, folder),
        way=_way(texts, options),
        include=[_choice("include", one, INCLUDED) for one in _list(form, "include")],
    )


def check_model(name: str | None, options: ServeOptions) -> None:
    """Refuse the name of a model that is not here.

    Raises:
        ApiError: 404.
    """
    if name and name not in options.names:
        raise ApiError(
            NOT_FOUND,
            f"the model {shown_name(name)} does not exist; allowed: {', '.join(options.names)}",
            "model",
            "model_not_found",
        )


def prompt_keywords(prompt: str, language: str) -> list[str]:
    """The words of a prompt that are keywords, by the rule for slides."""
    return extract_keywords([prompt], common_words(language), cap=0)


def _check_fields(form: Form) -> None:
    for name in form.texts:
        if name not in FIELDS:
            shown = shown_name(name)
            raise ApiError(BAD_REQUEST, f"the field {shown} is unknown; allowed: file, {', '.join(FIELDS)}", shown)


def _choice(field: str, value: str, allowed: Sequence[str]) -> str:
    if value not in allowed:
        raise ApiError(BAD_REQUEST, f"{field} {value!r:.60} is unknown; allowed: {', '.join(allowed)}", field)
    return value


def _list(form: Form, field: str) -> list[str]:
    return [value.strip() for value in form.texts.get(field, []) if value.strip()]


def _true(text: str) -> bool:
    return _choice("stream", text.lower() or "false", ("true", "false", "1", "0")) in ("true", "1")


def _language(language: str) -> str:
    try:
        common_words(language)
    except (InputError, ImportError) as error:
        raise ApiError(BAD_REQUEST, str(error), "language") from None
    return language


def _refuse_sampling(texts: dict[str, str]) -> None:
    temperature = texts.get("temperature") or "0"
    try:
        zero = float(temperature) == 0
    except ValueError:
        zero = False
    if not zero:
        raise ApiError(BAD_REQUEST, f"temperature {temperature!r:.20}: decoding is greedy; allowed: 0", "temperature")
    if texts.get("chunking_strategy", "auto").strip('"') != "auto":
        raise ApiError(
            BAD_REQUEST, "chunking_strategy: recordings are cut at pauses; allowed: auto", "chunking_strategy"
        )


def _keywords(form: Form) -> list[str]:
    texts = form.texts.get("keywords", [])
    for upload in form.uploads("keywords"):
        try:
            texts = [*texts, read_text(upload.path)]
        except InputError:
            raise ApiError(BAD_REQUEST, f"{upload.name} is not UTF-8 text", "keywords") from None
    return [keyword for text in texts for keyword in listed_keywords(text)]


def listed_keywords(text: str) -> list[str]:
    """The keywords of a JSON list, or of a text with commas or line ends between them.

    Raises:
        ApiError: a JSON list of anything but texts.
    """
    if text.lstrip().startswith("["):
        try:
            found = json.loads(text)
        except (ValueError, RecursionError):
            found = None
        if not isinstance(found, list) or not all(isinstance(one, str) for one in found):
            raise ApiError(BAD_REQUEST, "keywords are no JSON list of texts", "keywords")
        return found
    return [part.strip() for part in re.split(f"[{OTHER_SEPARATORS}]", text) if part.strip()]


def _slides(form: Form, options: ServeOptions, folder: Path) -> list[Upload]:
    """Files of slides, and those that come as text: a data URL, or what is on them."""
    decks = list(form.uploads("slides"))
    for number, text in enumerate(form.texts.get("slides", []), _FIRST_TEXT):
        if not text.strip():
            continue
        if len(decks) >= options.limits.files:
            raise ApiError(TOO_LARGE, f"too many files for slides; allowed: {options.limits.files}", "slides")
        url = _DATA_URL.match(text)
        content = decode_base64(text[url.end() :], "slides") if url else text.encode()
        decks.append(place_upload(folder, number, "slides", f"slides {len(decks) + 1}", content))
    return decks


def decode_base64(text: str, field: str) -> bytes:
    """The bytes of a text in base64.

    Raises:
        ApiError: it is none.
    """
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise ApiError(BAD_REQUEST, f"{field} holds what is not base64", field) from None


def _manifest(form: Form, texts: dict[str, str], folder: Path) -> Upload | None:
    uploads = form.uploads("manifest")
    if not uploads and texts.get("manifest", "").strip():
        uploads = [place_upload(folder, _FIRST_TEXT - 1, "manifest", "manifest", texts["manifest"].encode())]
    return uploads[0] if uploads else None


def _way(texts: dict[str, str], options: ServeOptions) -> Way:
    bank = texts.get("term_bank") or None
    if bank is not None and bank not in options.banks:
        allowed = ", ".join(options.banks) or "none, since the server was started without --term-bank"
        raise ApiError(BAD_REQUEST, f"term_bank {bank!r:.60} is unknown; allowed: {allowed}", "term_bank")
    return Way(texts.get("stages") or None, texts.get("pruner") or None, options.banks[bank] if bank else None)
