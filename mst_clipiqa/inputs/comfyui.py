"""A ComfyUI graph -> what its sampler got: prompt, seed, steps, ...

A graph is {id: {"class_type": ..., "inputs": {name: a value, or [id, output] of another node}}}. It is followed from
the node that samples, against the arrows, breadth first, each node once; so the nearest node that answers wins, and
circles and depth do no harm.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from typing import Any, TypeAlias

_Inputs: TypeAlias = Mapping[Any, Any]

_MOST_NODES = 20_000
_MOST_TEXTS = 20
_SIDES = ("positive", "negative")
# Inputs that hold words; those of a side, such as "positive", come before them.
_WORDS = ("text", "text_g", "text_l", "clip_l", "t5xxl", "prompt", "string", "value", "populated_text", "wildcard_text")
_JOINED = ("string_a", "string_b", "text1", "text2", "text_a", "text_b")  # parts of one text, in this order
_NOT_WORDS = {  # ways that lead to other images or to weights, not to the words
    *("clip", "model", "vae", "image", "images", "pixels", "mask", "samples", "latent", "latent_image", "control_net"),
    *("style_model", "clip_vision", "clip_vision_output", "lora_stack", "noise", "sampler", "sigmas"),
}
_NODE_SETTINGS: dict[str, tuple[str, ...]] = {
    "seed": ("seed", "noise_seed"),
    "steps": ("steps",),
    "sampler": ("sampler_name",),
    "cfg_scale": ("cfg", "cfg_scale", "guidance"),
    "model": ("ckpt_name", "unet_name", "model_name"),
    "width": ("width",),
    "height": ("height",),
}


def from_graph(graph: object) -> dict[str, Any]:
    """Return a graph's "prompt", "negative_prompt", "seed", ... by name; empty if it is no such graph."""
    nodes = _nodes(graph)
    sampler = _sampler(nodes)
    if sampler is None:
        texts = {text for inputs in nodes.values() if (text := _own_text(inputs, "positive"))}
        return {"prompt": texts.pop()} if len(texts) == 1 else {}
    found = {name: _setting(nodes, sampler, keys) for name, keys in _NODE_SETTINGS.items()}
    for side, name in zip(_SIDES, ("prompt", "negative_prompt"), strict=True):
        found[name] = ", ".join(_texts(nodes, sampler, side))
    return {name: value for name, value in found.items() if value not in (None, "")}


def _nodes(graph: object) -> dict[str, _Inputs]:
    """Return the inputs of each node; what is not shaped like a node is left out."""
    if not isinstance(graph, dict) or len(graph) > _MOST_NODES:
        return {}
    found = {str(key)[:100]: node.get("inputs") for key, node in graph.items() if isinstance(node, dict)}
    return {key: inputs for key, inputs in found.items() if isinstance(inputs, dict)}


def _link(value: object) -> tuple[str, int] | None:
    """Return the node and the output that an input is connected to, or None."""
    if isinstance(value, list) and len(value) == 2 and isinstance(value[0], str | int) and isinstance(value[1], int):
        return str(value[0])[:100], value[1]
    return None


def _sampler(nodes: Mapping[str, _Inputs]) -> str | None:
    """Return the node that samples: the last before an image is saved, or else the first there is."""
    ends = [key for key, inputs in nodes.items() if _link(inputs.get("images")) or "filename_prefix" in inputs]
    reached = (key for key in _backwards(nodes, ends) if _samples(nodes[key]))
    return next(reached, None) or next((key for key, inputs in nodes.items() if _samples(inputs)), None)


def _samples(inputs: _Inputs) -> bool:
    takes_latent = any(name in inputs for name in ("latent_image", "latent", "samples", "steps"))
    has_words = _link(inputs.get("positive")) or _link(inputs.get("guider")) or _link(inputs.get("text_embeds"))
    return bool(has_words) and takes_latent


def _backwards(nodes: Mapping[str, _Inputs], starts: list[str]) -> Iterator[str]:
    """Yield nodes and those that feed them, the nearest first, each once."""
    waiting, seen = deque(starts), set(starts)
    while waiting:
        key = waiting.popleft()
        if key not in nodes:
            continue
        yield key
        for value in nodes[key].values():
            if (link := _link(value)) and link[0] not in seen:
                seen.add(link[0])
                waiting.append(link[0])


def _setting(nodes: Mapping[str, _Inputs], sampler: str, keys: tuple[str, ...]) -> Any:
    """Return the nearest plain value of any of these names."""
    for node in _backwards(nodes, [sampler]):
        for key in keys:
            value = nodes[node].get(key)
            if isinstance(value, str | int | float):
                return value
            if (link := _link(value)) and (plain := _primitive(nodes.get(link[0], {}), keys)) is not None:
                return plain
    return None


def _primitive(inputs: _Inputs, keys: tuple[str, ...]) -> str | int | float | None:
    """Return the value of a node that does nothing but hold one, such as a seed for several samplers."""
    for key in (*keys, "value", "int", "float", "Value", "Number"):
        if isinstance(value := inputs.get(key), str | int | float):
            return value
    return None


def _texts(nodes: Mapping[str, _Inputs], sampler: str, side: str) -> list[str]:
    """Return the texts that reach one side of the sampler, the nearest first."""
    waiting = deque(_starts(nodes, nodes[sampler], side))
    seen = set(waiting)
    found: dict[str, None] = {}
    while waiting and len(found) < _MOST_TEXTS:
        inputs = nodes.get(waiting.popleft(), {})
        if text := _own_text(inputs, side):
            found[text] = None
            continue
        # A node that passes both sides on has an input for each; weights and images lead to other words.
        names = [side] if _link(inputs.get(side)) else [name for name in inputs if name not in _NOT_WORDS]
        for name in names:
            if (link := _link(inputs[name])) and link[0] not in seen:
                seen.add(link[0])
                waiting.append(link[0])
    return list(found)


def _starts(nodes: Mapping[str, _Inputs], inputs: _Inputs, side: str) -> list[str]:
    """Return the node that one side of a sampler is connected to, or nothing."""
    if guider := _link(inputs.get("guider")):
        inputs = nodes.get(guider[0], {})
    names = (side, "text_embeds", *(["conditioning"] if side == "positive" else []))  # some have no negative side
    return [link[0] for name in names if (link := _link(inputs.get(name)))][:1]


def _own_text(inputs: _Inputs, side: str) -> str:
    """Return the words that a node itself holds."""
    for name in (side, f"{side}_prompt"):
        if isinstance(text := inputs.get(name), str) and text.strip():
            return text
    if joined := [text for name in _JOINED if isinstance(text := inputs.get(name), str) and text.strip()]:
        return " ".join(joined)
    words = [text for name in _WORDS if isinstance(text := inputs.get(name), str) and text.strip()]
    return ", ".join(dict.fromkeys(words))
