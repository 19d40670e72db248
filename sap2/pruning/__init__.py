"""Which keywords of a list, or terms of a bank, are spoken? From what is heard, to a ranked list.

``bank`` prepares terms once, ``spotting`` searches them among the letters that the spotter hears, ``attending`` has the
retriever look for them, ``matching`` looks up the words that the spotter reads, ``calibration`` makes probabilities of
scores. How it becomes stage one: :mod:`sap2.pipeline.pruners`.
"""

PRUNERS = ("generate", "spot", "attend", "match")
"""What ``--pruner`` allows, alone or several joined by ``+``."""
PRUNE_TOP = 8
"""Keywords that go on to stage two at most."""
PRUNE_THRESHOLD = 0.1
"""Least probability of those."""
SURE = 0.8
"""Probability from which one may replace what stage two wrote (:mod:`sap2.pipeline.correcting`)."""
POSSIBLE = 0.02
"""Probability from which one of the utterance's own list may replace what is spelled nearly like it."""
