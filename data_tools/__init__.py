"""Doors to the tools of :mod:`sap2.data`: ``python -m data_tools.NAME`` in a checkout and from a wheel."""
