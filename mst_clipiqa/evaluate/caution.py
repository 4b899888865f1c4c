"""When a figure carries a caution: of an unfamiliar image, or of few prompts.

Apart, so that commands that only read tables load no numpy.
"""

UNFAMILIAR = 0.05
"""Below this familiarity a score carries a caution: one in twenty images of the training kind does."""

FEW_GROUPS = 9
"""Over fewer prompts an interval says little; intervals of scores are not calibrated on fewer either."""


def is_unfamiliar(familiarity: float | None) -> bool:
    """Return whether an image is less familiar than 95 % of new images of the training kind; False if unknown."""
    return familiarity is not None and familiarity < UNFAMILIAR


def say_few_groups(groups: int, over: str = "prompts") -> str:
    """Return the caution on an interval over so many ``over``, prompts or images; empty without need.

    Over a single one there is no interval, which has its own reason.

    Example:
        >>> say_few_groups(2)
        'Intervals over 2 prompts say little: test on 9 or more.'
    """
    is_few = 1 < groups < FEW_GROUPS
    return f"Intervals over {groups} {over} say little: test on {FEW_GROUPS} or more." if is_few else ""
