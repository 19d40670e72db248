"""What a loaded checkpoint must hold."""

from __future__ import annotations

from sap2.errors import InputError

POOLING = "context_pooling."
"""In the names of the pooling layer's tensors."""


def check_loaded(source: str, info: dict) -> bool:
    """Refuse a checkpoint that does not fill the model exactly, but for the pooling layer.

    Args:
        source: for the message.
        info: transformers' loading report.

    Returns:
        Whether the checkpoint lacks the tensors of the pooling layer, as a plain Qwen2-Audio does.

    Raises:
        InputError: names the tensors.
    """
    missing = set(info.get("missing_keys") or ())
    pooling = {name for name in missing if POOLING in name}
    problems = {
        "missing": missing - pooling,
        "unexpected": info.get("unexpected_keys"),
        "of another shape": [key[0] if isinstance(key, tuple) else key for key in info.get("mismatched_keys") or ()],
    }
    found = [
        f"{len(keys)} {problem} ({', '.join(sorted(keys)[:3])}{', …' if len(keys) > 3 else ''})"
        for problem, keys in problems.items()
        if keys
    ]
    if found:
        raise InputError(
            f"the weights in {source} are not those of a Qwen2-Audio model: tensors {'; '.join(found)}; "
            f"allowed: every tensor of the model and no other"
        )
    return bool(pooling)
