"""From which familiarity on a score carries a caution; apart, so that commands that only read tables load no numpy."""

UNFAMILIAR = 0.05
"""Below this familiarity a score carries a caution: one in twenty images of the training kind does."""
