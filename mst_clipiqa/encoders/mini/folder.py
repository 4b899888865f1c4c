"""Small encoders in a folder: ``config.json`` (sizes and views), ``model.safetensors`` (weights as ``storage.py`` packs
them) and ``tokenizer.json``.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

import safetensors.torch
import torch
from tokenizers import Tokenizer

from mst_clipiqa.encoders.checks import built, built_view, expecting, load_weights, parse_json
from mst_clipiqa.encoders.mini.checks import check_tokenizer, checked_parts
from mst_clipiqa.encoders.mini.int8 import read_ranges
from mst_clipiqa.encoders.mini.pair import FORMAT, MiniConfig, MiniPair, MiniParts
from mst_clipiqa.encoders.mini.storage import SCALE, StoredEmbedding, packed, scale_of, unpacked
from mst_clipiqa.encoders.mini.text import TextConfig
from mst_clipiqa.encoders.mini.towers import TowerConfig
from mst_clipiqa.errors import ModelError

MINI = Path(__file__).parents[2] / "weights" / "mini" / "encoders"
SMALL_FILES = ("config.json", "model.safetensors", "tokenizer.json")

_EMBEDDINGS = "text.words.weight"
_LEAST_SIDE = 16  # of a view: below it the last maps have no positions


def load_mini_pair(folder: Path = MINI, source: str = "mini") -> MiniPair:
    """Return the encoders of a folder, on the CPU in float32.

    Args:
        folder: holds config.json, model.safetensors and tokenizer.json.
        source: the name under which a saved model asks for them again.

    Raises:
        ModelError: a file is missing or broken, or the weights do not fit the config.
    """
    for name in SMALL_FILES:
        if not (folder / name).is_file():
            raise ModelError(f"Expected small encoders with {name} at {folder}, got none: check the path.")
    raw = [(folder / name).read_bytes() for name in SMALL_FILES]
    config = _config(raw[0], folder)
    stored, tokenizer = load_weights(raw[1], folder / "model.safetensors"), _tokenizer(raw[2], folder)
    coarse, fine, text = checked_parts(config.coarse, config.fine, config.text, stored, folder)
    check_tokenizer(tokenizer, config.text.words, folder)
    words_scale = scale_of(stored, _EMBEDDINGS)
    if words_scale is not None:
        text.words = StoredEmbedding(stored.pop(_EMBEDDINGS), words_scale)
        del stored[_EMBEDDINGS + SCALE]
    weights = unpacked(stored)
    for name, part in (("coarse", coarse), ("fine", fine), ("text", text)):
        own = {k.removeprefix(f"{name}."): v for k, v in weights.items() if k.startswith(f"{name}.")}
        with expecting(f"the {name} encoder of config.json in {folder}", "fetch its files again"):
            part.load_state_dict(own, assign=True)
    sha256 = hashlib.sha256()
    for one in raw:  # without a copy of them all
        sha256.update(one)
    digest = sha256.hexdigest()
    ranges = read_ranges(folder, digest, (config.coarse, config.fine), config.view)
    return MiniPair(config, MiniParts(coarse, fine, text, tokenizer), source, digest, ranges)


def save_mini_pair(folder: Path, config: MiniConfig, parts: MiniParts) -> None:
    """Write an encoder folder; ``storage.py`` says how weights are rounded."""
    folder.mkdir(parents=True, exist_ok=True)
    modules: Mapping[str, torch.nn.Module] = {"coarse": parts.coarse, "fine": parts.fine, "text": parts.text}
    weights = {
        f"{name}.{key}": tensor
        for name, module in modules.items()
        for key, tensor in packed(module.state_dict()).items()
    }
    (folder / "model.safetensors").write_bytes(safetensors.torch.save(weights, metadata={"format": "pt"}))
    parts.tokenizer.save(str(folder / "tokenizer.json"), pretty=False)
    text = json.dumps(dataclasses.asdict(config), indent=2) + "\n"
    (folder / "config.json").write_text(text, encoding="utf-8", newline="\n")


def _tokenizer(raw: bytes, folder: Path) -> Tokenizer:
    with expecting(f"a tokenizer in {folder / 'tokenizer.json'}"):
        found = Tokenizer.from_str(raw.decode("utf-8"))
        found.no_padding()  # a file may ask for a billion
        found.no_truncation()
        return found


def _config(raw: bytes, folder: Path) -> MiniConfig:
    path = folder / "config.json"
    data = parse_json(raw, path)
    version = data.get("format") if isinstance(data, dict) else None
    if version != FORMAT:
        got = f"format {repr(version)[:80]}"
        raise ModelError(f"Expected small encoders of format {FORMAT} in {path}, got {got}: fetch the file again.")
    view = built_view(data.get("view"), path)
    if min(view.size, view.crop_size) < _LEAST_SIDE:
        raise ModelError(f"Expected views of {_LEAST_SIDE} pixels or more in {path}: fetch the file again.")
    coarse, fine = (built(TowerConfig, data.get(name), path, name) for name in ("coarse", "fine"))
    return MiniConfig(coarse, fine, built(TextConfig, data.get("text"), path, "text"), view)
