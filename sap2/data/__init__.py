"""Corpora and slides to training rows. No torch here; every tool is a command (``sap2 data NAME``) and a function."""
