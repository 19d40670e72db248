"""Why a word was written: what the model looked at, what it needed, and what each keyword changed."""
