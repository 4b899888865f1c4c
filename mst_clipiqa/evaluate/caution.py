"""Below which familiarity a score carries a caution; apart, so that commands that only read tables load no numpy."""

UNFAMILIAR = 0.05
"""Below this familiarity a score carries a caution: one in twenty images of the training kind does."""


def is_unfamiliar(familiarity: float | None) -> bool:
    """Return whether an image is less familiar than 95 % of new images of the training kind; False if unknown."""
    return familiarity is not None and familiarity < UNFAMILIAR
