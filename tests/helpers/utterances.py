"""Three utterances, and what tests look at in the rows that are built of them."""

from __future__ import annotations

from sap2.rowfiles import read_rows

UTTERANCES = [
    {"id": "a1", "audio": "/x/a1.flac", "text": "hi guys i'm emily", "keywords": ["emily", "steve wozniak", "apple"]},
    {
        "id": "a2",
        "audio": "/x/a2.flac",
        "text": "colour of steve wozniak",
        "keywords": ["Wozniak", "color", "steve wozniak"],
    },
    {"id": "a3", "audio": "/x/a3.flac", "text": "nothing here", "keywords": []},
]


def rows_of(path):
    return [row for _, row in read_rows(path)]


def turns(row):
    return [message["content"] for message in row["messages"]]
