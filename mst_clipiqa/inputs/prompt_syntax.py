"""The syntax that image generators put around the words of a prompt, removed, so that the words alone are scored."""

from __future__ import annotations

import re
from collections.abc import Callable

_LONGEST_PROMPT = 20_000  # characters; a longer prompt is left as it is, and its end is not read anyway
_DEEPEST = 12  # brackets within brackets

_WEIGHT = r"[+-]?(?:\d{1,4}(?:\.\d{0,6})?|\.\d{1,6})"
# "(word:1.3)": a weight is a number after a colon, and no digit comes before that, as in "(at 10:30)".
_WEIGHTED = re.compile(rf"[(\[]([^()\[\]]*[^()\[\]\d\s]|)\s*:\s*{_WEIGHT}\s*[)\]]")
_SWITCHED = re.compile(rf"\[([^()\[\]:]*):([^()\[\]:]*):\s*{_WEIGHT}\s*\]")  # "[from:to:0.5]"
_DOUBLED = re.compile(r"\(\(([^()]*)\)\)|\[\[([^\[\]]*)\]\]|\{\{([^{}]*)\}\}")
_TAG = re.compile(r"<\s*(?:lora|lyco|locon|hypernet|hypernetwork|ti|embedding)\s*:[^<>]*>", re.IGNORECASE)
_EMBEDDING = re.compile(r"(?<![\w])embedding:[^\s,()<>]+", re.IGNORECASE)
_NAI_WEIGHT = re.compile(rf"(?<![\d.]){_WEIGHT}::([^:]*)::")  # "1.3::word::"
_BREAK = re.compile(r"(?<!\w)BREAK(?!\w)")
_NEGATIVE_PART = re.compile(r"(?:^|(?<=\s)|(?<=[.,;]))negative prompt\s*:.*", re.IGNORECASE | re.DOTALL)
_SETTINGS_LINE = re.compile(r"(?:^|\n)\s*Steps: \d+, [^\n]*(?:Sampler|CFG scale|Seed)[^\n]*.*", re.DOTALL)
_COMMAS = re.compile(r"(?<!\s)\s*,(?:\s*,)*")
_BLANKS = re.compile(r"[ \t]{2,}")


def without_syntax(prompt: str) -> tuple[str, list[str]]:
    """Return a prompt without a generator's syntax, and what was removed, in words for a message.

    Removed are weights and doubled brackets (the words stay), LoRA and embedding tags, BREAK, and everything from
    "Negative prompt:" on. Plain brackets are language and stay. A prompt without such syntax comes back as it is.

    Args:
        prompt: any text.

    Example:
        >>> without_syntax("a (red:1.3) ball <lora:x:0.8>")
        ('a red ball', ['tags', 'weights'])
    """
    if len(prompt) > _LONGEST_PROMPT:
        return prompt, []
    text, removed = prompt, []
    for name, remove in _REMOVALS:
        without = remove(text)
        if without != text:
            text = without
            removed.append(name)
    if not removed:
        return prompt, []
    return _BLANKS.sub(" ", _COMMAS.sub(",", text)).strip(" \t\r\n,"), removed


def _without_negative(text: str) -> str:
    return _SETTINGS_LINE.sub("", _NEGATIVE_PART.sub("", text))


def _without_tags(text: str) -> str:
    return _EMBEDDING.sub("", _TAG.sub("", text))


def _without_weights(text: str) -> str:
    """Return text without weights, from the innermost brackets outwards; escaped brackets stay as brackets."""
    escaped = text.replace(r"\(", "\ue000").replace(r"\)", "\ue001")  # private use: no prompt has these
    before = escaped
    for _ in range(_DEEPEST):
        after = _NAI_WEIGHT.sub(r"\1", _SWITCHED.sub(r"\2", before))
        after = _DOUBLED.sub(lambda found: next(part for part in found.groups() if part is not None), after)
        after = _WEIGHTED.sub(r"\1", after)
        if after == before:
            break
        before = after
    return before.replace("\ue000", "(").replace("\ue001", ")") if before != escaped else text


_REMOVALS: tuple[tuple[str, Callable[[str], str]], ...] = (
    ("a negative prompt", _without_negative),
    ("tags", _without_tags),
    ("weights", _without_weights),
    ("BREAK", lambda text: _BREAK.sub(",", text)),
)
