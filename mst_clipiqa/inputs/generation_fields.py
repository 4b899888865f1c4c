"""What a file says of its generation, by names that differ from generator to generator -> one ``Generation``."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

MOST_PROMPT = 100_000
"""Characters of a prompt that are kept."""
_MOST_JSON_TEXT = 8 * 2**20  # characters

# What generators call the same thing, in small letters and without spaces, "_" and "-"; the likeliest first.
FIELD_NAMES: dict[str, tuple[str, ...]] = {
    "prompt": ("prompt", "positiveprompt", "textprompt", "caption", "text"),
    "negative_prompt": ("negativeprompt", "negative", "uc"),
    "seed": ("seed", "noiseseed"),
    "steps": ("steps", "numinferencesteps"),
    "sampler": ("sampler", "samplername", "scheduler"),
    "cfg_scale": ("cfgscale", "cfg", "guidancescale", "scale"),
    "model": ("model", "modelname", "basemodel", "basemodelname", "modelweights", "usestablediffusionmodel"),
    "size": ("size", "resolution"),
}


@dataclass(frozen=True)
class Generation:
    """How an image was generated, as its file records it; None for what it does not record.

    Attributes:
        prompt: as written, with the generator's own syntax in it (``prompt_syntax.without_syntax`` removes that).
        negative_prompt: what the image should not show.
        seed: of the random numbers.
        steps: of the sampler.
        sampler: its name.
        cfg_scale: weight of the prompt (classifier-free guidance).
        model: name of the model that generated the image.
        size: width and height as generated, in pixels; the file's own may differ after upscaling.
        software: "ComfyUI", "AUTOMATIC1111", ...; empty if unknown.
        raw: the texts of the file by their names, as they were found.
    """

    prompt: str | None = None
    negative_prompt: str | None = None
    seed: int | None = None
    steps: int | None = None
    sampler: str | None = None
    cfg_scale: float | None = None
    model: str | None = None
    size: tuple[int, int] | None = None
    software: str = ""
    raw: dict[str, str] = field(default_factory=dict, repr=False)


def from_fields(fields: Mapping[Any, Any], software: str) -> Generation:
    """Return the settings in fields, by any of their usual names; values that make no sense are left out."""
    plain = {plain_name(name): value for name, value in reversed(list(fields.items())) if isinstance(name, str)}
    found = {
        name: next((plain[alias] for alias in aliases if plain.get(alias) is not None), None)
        for name, aliases in FIELD_NAMES.items()
    }
    return Generation(
        prompt=text_of(found["prompt"]),
        negative_prompt=text_of(found["negative_prompt"]),
        seed=int_of(found["seed"]),
        steps=int_of(found["steps"]),
        sampler=text_of(found["sampler"]),
        cfg_scale=float_of(found["cfg_scale"]),
        model=text_of(found["model"]),
        size=_size(found["size"], plain.get("width"), plain.get("height")),
        software=software,
    )


def plain_name(name: str) -> str:
    """Return a name in small letters, without spaces, "_" and "-"."""
    return re.sub(r"[ _-]", "", name[:40]).lower()


def _size(size: object, width: object, height: object) -> tuple[int, int] | None:
    if isinstance(size, str) and (match := re.search(r"(\d{1,6})\D{1,3}(\d{1,6})", size[:100])):
        width, height = match.groups()
    sides = int_of(width), int_of(height)
    return (sides[0], sides[1]) if sides[0] and sides[1] and min(sides[0], sides[1]) > 0 else None


def text_of(value: object) -> str | None:
    """Return text in valid Unicode, without blanks at its ends and not endless; None for anything else or nothing."""
    if isinstance(value, dict):  # InvokeAI: a model, or a prompt with its weight
        value = next((value[name] for name in ("name", "model_name", "prompt") if name in value), None)
    if isinstance(value, list):
        parts = [one.get("prompt") if isinstance(one, dict) else one for one in value[:100]]
        value = ", ".join(part for part in parts if isinstance(part, str))
    if not isinstance(value, str):
        return None
    return value[:MOST_PROMPT].encode("utf-8", "replace").decode().replace("\0", "").strip() or None


def int_of(value: object) -> int | None:
    """Return a whole number below 2**64 in size, or None."""
    number = float_of(value)
    if number is None or number != int(number):
        return None
    return int(value) if isinstance(value, str) and value.strip().lstrip("-").isdecimal() else _whole(value, number)


def _whole(value: object, number: float) -> int:
    return value if isinstance(value, int) else int(number)  # an int may be longer than a float is exact


def float_of(value: object) -> float | None:
    """Return a finite number below 2**64 in size, or None."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value[:40] if isinstance(value, str) else value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) and abs(number) < 2**64 else None


def json_of(text: object) -> Any:
    """Return the value of a JSON text, or None: it is something else, too long or too deep."""
    if not isinstance(text, str) or len(text) > _MOST_JSON_TEXT or text.strip()[:1] not in ("{", "["):
        return None
    try:
        return json.loads(text)
    except (ValueError, RecursionError, MemoryError):
        return None
