"""Corpora and slides to training rows. No torch here; every module is a command and a function."""
