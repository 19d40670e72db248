"""From a deck of slides to keywords: reading decks, choosing words, and which slide was shown when."""
