"""``sap2 serve``: transcription over HTTP, as OpenAI's clients ask for it."""
