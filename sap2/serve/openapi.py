"""What ``/openapi.json`` says of the forms that are read by hand, and the page ``/docs``, which loads nothing else."""

from __future__ import annotations

from typing import Any

from sap2.serve.forms import FORMATS, GRANULARITIES, INCLUDED


def _text(description: str, **more: Any) -> dict[str, Any]:
    return {"type": "string", "description": description, **more}


def _texts(description: str, **more: Any) -> dict[str, Any]:
    return {"type": "array", "items": {"type": "string", **more}, "description": description}


_FILE = {"type": "string", "format": "binary"}
_FORM: dict[str, Any] = {
    "file": {**_FILE, "description": "The recording: audio or video of any kind that ffmpeg reads."},
    "model": _text("A name of /v1/models; may be left out."),
    "language": _text("Whose common words are no keywords of slides and prompts.", default="en"),
    "prompt": _text("Its words that are not common are keywords."),
    "response_format": _text("Form of the answer.", enum=list(FORMATS), default="json"),
    "timestamp_granularities[]": _texts("What verbose_json has times of.", enum=list(GRANULARITIES)),
    "stream": {"type": "boolean", "description": "Answer segment by segment, as server-sent events.", "default": False},
    "temperature": {"type": "number", "enum": [0], "description": "Decoding is greedy."},
    "chunking_strategy": _text("Recordings are cut at pauses.", enum=["auto"]),
    "include[]": _texts("What verbose_json has as well.", enum=list(INCLUDED)),
    "keywords": _text("What may be said: with commas or line ends between, or a JSON list. Or a file of them."),
    "slides": {"type": "array", "items": _FILE, "description": "Decks: PDF, PPTX, pictures, text. Or data URLs."},
    "manifest": {
        **_FILE,
        "description": "When which slide was shown: CSV or JSON lines with audio, start, end, slide.",
    },
    "stages": _text("asr, or prune,asr."),
    "pruner": _text("How stage one picks: generate, spot, match."),
    "term_bank": _text("A name that the server was started with."),
}
TRANSCRIPTION: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {"multipart/form-data": {"schema": {"type": "object", "required": ["file"], "properties": _FORM}}},
    }
}
_MESSAGES = {
    "type": "array",
    "items": {"type": "object"},
    "description": "The last of the user holds one part input_audio (base64), or audio_url with a data URL, and text.",
}
CHAT: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {
                "schema": {
                    "type": "object",
                    "required": ["messages"],
                    "properties": {
                        "model": _text("A name of /v1/models."),
                        "messages": _MESSAGES,
                        "stream": {"type": "boolean", "default": False},
                    },
                }
            }
        },
    }
}
DOCS = """<!doctype html>
<html lang="en">
<meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>sap2 serve</title>
<style>
:root { color-scheme: light dark } body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto;
padding: 0 1rem } h2 { font-family: ui-monospace, monospace; font-size: 1.1rem; margin-top: 2rem }
table { border-collapse: collapse; width: 100% } td { border-top: 1px solid #8886; padding: .3rem .6rem .3rem 0;
vertical-align: top } td:first-child { font-family: ui-monospace, monospace; white-space: nowrap }
</style>
<h1>sap2 serve</h1>
<p>As OpenAI's API; <a href="openapi.json">openapi.json</a> is for programs.</p>
<main id="paths">Loading…</main>
<script>
const make = (name, text, ...inside) => { const made = document.createElement(name); if (text) made.textContent = text;
  made.append(...inside); return made }
fetch("openapi.json").then(answer => answer.json()).then(api => {
  const main = document.getElementById("paths"); main.textContent = ""
  for (const [path, methods] of Object.entries(api.paths)) for (const [method, about] of Object.entries(methods)) {
    main.append(make("h2", method.toUpperCase() + " " + path), make("p", about.description || ""))
    for (const [type, content] of Object.entries((about.requestBody || {}).content || {})) {
      const table = make("table")
      for (const [name, field] of Object.entries(content.schema.properties || {})) {
        const choice = (field.items || field).enum
        const more = choice ? " Allowed: " + choice.join(", ") + "." : ""
        table.append(make("tr", "", make("td", name), make("td", (field.description || "") + more)))
      }
      main.append(make("p", type), table)
    }
  }
})
</script>
</html>
"""
