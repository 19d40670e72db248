"""How a context is compressed, by method."""
