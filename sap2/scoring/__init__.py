"""Scores of contextual speech recognition: WER, U-WER, B-WER and keyword recall, by the two published definitions."""
