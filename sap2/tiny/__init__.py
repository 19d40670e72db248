"""A tiny checkpoint and synthetic talks, so that everything runs without a GPU and without a download."""
