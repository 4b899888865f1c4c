"""How an image was generated, as its generator wrote it into the file: prompt, seed, steps, sampler, ...

    file - texts - [ComfyUI | InvokeAI | NovelAI | SwarmUI | Fooocus | AUTOMATIC1111 | fields by name] - Generation

What a file says of itself is taken as a claim by a stranger: every text is bounded, nothing recurses over the data,
and what does not parse is left out. A score never depends on it, but for the prompt that the user asks to be read.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from mst_clipiqa.errors import ImageError
from mst_clipiqa.inputs.comfyui import from_graph
from mst_clipiqa.inputs.generation_fields import (
    FIELD_NAMES,
    MOST_PROMPT,
    Generation,
    from_fields,
    json_of,
    plain_name,
    text_of,
)

if TYPE_CHECKING:
    from mst_clipiqa.images.files import File

_NEGATIVE_HEAD = "negative prompt:"  # how AUTOMATIC1111 heads it, at the start of a line; capitals do not matter
_LEAST_SETTINGS = 3  # on the line that ends AUTOMATIC1111's text: "Steps: 20, Sampler: Euler a, ..."


def read_generation(source: File) -> Generation | None:
    """Return how an image was generated, as its file records it, or None if it records nothing.

    Args:
        source: a path, or the bytes of a file.

    Raises:
        ImageError: the file cannot be read, or is none of the formats that are read.

    Example:
        >>> read_generation("a.png").prompt  # doctest: +SKIP
        'a red ball on a table'
    """
    from mst_clipiqa.images.alpha_text import alpha_text  # imports Pillow, which those who only list files do not need
    from mst_clipiqa.images.texts import read_texts

    texts = read_texts(source)
    found = next((one for one in _readings(texts) if one is not None and _says_something(one)), None)
    if found is None and (hidden := alpha_text(source)):
        texts, found = {"alpha channel": hidden}, generation_of_text(hidden)
    return None if found is None else dataclasses.replace(found, raw=texts)


def generation_if_any(source: File | None) -> Generation | None:
    """Return the result of ``read_generation``; None without a file or if it is unreadable, which its score says."""
    try:
        return None if source is None else read_generation(source)
    except ImageError:
        return None


def generation_of_text(text: str) -> Generation | None:
    """Return the settings in a text beside an image, AUTOMATIC1111's lines or JSON with a prompt; else None."""
    if isinstance(value := json_of(text), dict):
        return _of_json(value)
    return from_lines(text, need_settings=True)


def _readings(texts: Mapping[str, str]) -> Iterator[Generation | None]:
    """Yield one reading of the texts after the other, the surest first."""
    yield _of_graph(json_of(next(_graphs(texts), "")))
    yield _invokeai(texts)
    for name in ("Comment", "UserComment", "parameters"):
        if isinstance(value := json_of(texts.get(name, "")), dict):
            yield _of_json(value, texts)
    if text := texts.get("parameters"):
        yield from_lines(text, need_settings=False)
    for name in ("UserComment", "Comment", "ImageDescription"):
        yield from_lines(texts.get(name, ""), need_settings=True)
    named = next((text for name, text in texts.items() if plain_name(name) in FIELD_NAMES["prompt"]), "")
    if named.strip()[:1] not in ("", "{", "["):  # JSON that nothing above could read is no prompt
        yield from_fields(texts, "")


def _graphs(texts: Mapping[str, str]) -> Iterator[str]:
    """Yield the texts that may be a graph of ComfyUI's: of PNG, and of WebP, where EXIF fields are lent for it."""
    if texts.get("prompt", "").lstrip().startswith("{"):
        yield texts["prompt"]
    for name in ("Model", "Make", "ImageDescription"):
        head, colon, text = texts.get(name, "").partition(":")
        if colon and head.strip().lower() == "prompt":
            yield text


def _of_graph(graph: object) -> Generation | None:
    """Return the settings in a ComfyUI graph, or None."""
    found = from_graph(graph)
    return from_fields(found, "ComfyUI") if found else None


def _of_json(value: dict[Any, Any], texts: Mapping[str, str] | None = None) -> Generation | None:
    """Return the settings in a JSON object, whichever generator wrote it."""
    if isinstance(swarm := value.get("sui_image_params"), dict):
        return from_fields(swarm, "SwarmUI")
    if isinstance(value.get("prompt"), dict):
        return _of_graph(value["prompt"])
    if isinstance(inner := json_of(value.get("Comment")), dict):  # NovelAI's texts as one, in a WebP
        return _of_json(inner, {k: v for k, v in value.items() if isinstance(v, str)})
    if "uc" in value or "v4_prompt" in value:
        return _novelai(value, texts or {})
    software = "Fooocus" if "base_model" in value or "fooocus" in str(value.get("version", "")).lower() else ""
    return from_fields(value, software)


def _novelai(value: Mapping[Any, Any], texts: Mapping[str, str]) -> Generation:
    found = from_fields({"prompt": texts.get("Description")} | dict(value), "NovelAI")
    captions = [found.prompt, *_captions(value.get("v4_prompt"))]
    prompt = ", ".join(dict.fromkeys(one for one in captions if one))
    model = found.model or text_of(texts.get("Source"))
    return dataclasses.replace(found, prompt=prompt or None, model=model)


def _captions(prompt: object) -> Iterator[str | None]:
    """Yield the captions of NovelAI's fourth version: of the scene, then of its characters."""
    caption = prompt.get("caption") if isinstance(prompt, dict) else None
    if isinstance(caption, dict):
        yield text_of(caption.get("base_caption"))
        characters = caption.get("char_captions")
        for one in characters[:100] if isinstance(characters, list) else ():
            yield text_of(one.get("char_caption")) if isinstance(one, dict) else None


def _invokeai(texts: Mapping[str, str]) -> Generation | None:
    if isinstance(value := json_of(texts.get("invokeai_metadata")), dict):
        return from_fields(value, "InvokeAI")
    if isinstance(value := json_of(texts.get("sd-metadata")), dict) and isinstance(value.get("image"), dict):
        return _split_negative(from_fields({"model": value.get("model_weights")} | value["image"], "InvokeAI"))
    if match := re.match(r'\s*"([^"]*)"([^"]*)$', texts.get("Dream", "")[:MOST_PROMPT]):
        flags = dict(re.findall(r"\s-([A-Za-z]+) ?(\S+)", match[2]))
        names = {"s": "steps", "S": "seed", "C": "cfg_scale", "A": "sampler", "W": "width", "H": "height"}
        fields = {name: flags.get(flag) for flag, name in names.items()}
        return _split_negative(from_fields(fields | {"prompt": match[1]}, "InvokeAI"))
    return None


def _split_negative(found: Generation) -> Generation:
    """Return the reading with what is in [brackets] as the negative prompt, as InvokeAI 1 and 2 wrote it."""
    negative = ", ".join(part.strip() for part in re.findall(r"\[([^\[\]]*)\]", found.prompt or ""))
    prompt = re.sub(r"\[[^\[\]]*\]", "", found.prompt or "").strip()
    return dataclasses.replace(found, prompt=prompt or None, negative_prompt=found.negative_prompt or negative or None)


def from_lines(text: str, *, need_settings: bool) -> Generation | None:
    """Return the settings in AUTOMATIC1111's text: the prompt, "Negative prompt: ...", then a line of settings.

    Args:
        text: any number of lines; some extensions add lines after the settings.
        need_settings: return None for text without the line of settings, which may be anything.
    """
    lines = text[: 4 * MOST_PROMPT].strip().splitlines()
    at, settings = next(
        ((i, found) for i in range(len(lines) - 1, -1, -1) if (found := _settings(lines[i]))), (len(lines), {})
    )
    if not lines or (need_settings and not settings):
        return None
    start = next((i for i in range(at) if lines[i].lower().lstrip().startswith(_NEGATIVE_HEAD)), at)
    negative = "\n".join(lines[start:at]).lstrip()[len(_NEGATIVE_HEAD) :]
    fields = settings | {"prompt": "\n".join(lines[:start]), "negative_prompt": negative}
    return from_fields(fields, "AUTOMATIC1111" if settings else "")


def _settings(line: str) -> dict[str, str]:
    """Return the settings of a line such as 'Steps: 20, Sampler: Euler a, Lora hashes: "a: 1, b: 2"'; or none."""
    if not line.lstrip().startswith("Steps:"):
        return {}
    found: dict[str, str] = {}
    # Commas within quotes do not part settings; every other part of a quoted line is inside them.
    parts = "".join(part if i % 2 else part.replace(",", "\n") for i, part in enumerate(line.split('"')))
    for setting in parts.split("\n"):
        name, colon, value = setting.partition(":")
        if colon:
            found.setdefault(name.strip(), value.strip())
    return found if len(found) >= _LEAST_SETTINGS else {}


def _says_something(found: Generation) -> bool:
    return bool(found.prompt) or (found.seed is not None and found.steps is not None)
