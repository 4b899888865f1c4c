"""The embedded model's encoders as an ``EncoderPair``, read from and written to a folder.

The folder holds ``config.json`` (sizes and views), ``model.safetensors`` (weights in float16) and
``tokenizer.json``.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from tokenizers import Tokenizer
from torch import Tensor

from mst_clipiqa.encoders.checks import load_weights, misfit
from mst_clipiqa.encoders.mini.checks import check_shapes, check_tokenizer
from mst_clipiqa.encoders.mini.towers import TextConfig, TextEncoder, Tower, TowerConfig
from mst_clipiqa.encoders.mini.vocabulary import is_in_vocabulary
from mst_clipiqa.encoders.pair import Chunking, PromptTokens
from mst_clipiqa.encoders.text import cleaned, padded
from mst_clipiqa.errors import ModelError, shown
from mst_clipiqa.model.mstfe import Stream
from mst_clipiqa.model.preprocess import ViewSpec, planar

MINI = Path(__file__).parents[2] / "weights" / "mini" / "encoders"
FORMAT = 3
PAD, UNKNOWN, START = 0, 1, 2

_LEAST_SIDE = 16  # of a view: its statistics need as many pixels
_GROUP = 4  # images per chunk
_FILES = ("config.json", "model.safetensors", "tokenizer.json")


@dataclass(frozen=True)
class MiniConfig:
    """``config.json`` of an encoder folder."""

    coarse: TowerConfig
    fine: TowerConfig
    text: TextConfig
    view: ViewSpec
    format: int = FORMAT


@dataclass(frozen=True)
class MiniParts:
    """The three encoders, the tokenizer, and which tokens stand for words met in training or close to one."""

    coarse: Tower
    fine: Tower
    text: TextEncoder
    tokenizer: Tokenizer
    in_vocabulary: Tensor  # bool, (words,)


class MiniPair:
    """Two towers over statistics and a text encoder as an ``EncoderPair``."""

    def __init__(self, config: MiniConfig, parts: MiniParts, source: str, sha256: str = "") -> None:
        """Take the parts ready built; ``load_mini_pair`` is the way from files."""
        self.coarse, self.fine = (tower.eval().requires_grad_(False) for tower in (parts.coarse, parts.fine))
        self.text = parts.text.eval().requires_grad_(False)
        self.tokenizer = parts.tokenizer
        self.in_vocabulary = parts.in_vocabulary
        self.view = config.view
        self.dim = self.text_dim = config.text.dim
        self.source = source
        self.sha256 = sha256
        self.precision = "fp32"

    def to(self, device: torch.device | str, precision: str = "fp32") -> MiniPair:
        """Move to a device; returns itself. Statistics need float32, so that is what ``precision`` stays."""
        for part in (self.coarse, self.fine, self.text):
            part.to(device=device)
        return self

    @property
    def device(self) -> torch.device:
        """Where the towers are."""
        return self.text.positions.device

    @property
    def chunking(self) -> Chunking:
        """On a CPU a few images per core.

        The work per image is too small to split across threads, and processing images one at a time would be
        dominated by Python overhead. Chunks of one size, each on one core, so that neither an image's batch nor the
        number of cores changes its rounding.
        """
        return Chunking(_GROUP, True, None) if self.device.type == "cpu" else Chunking(2**16, False, 1)

    def encode_chunk(self, stream: Stream, views: Tensor) -> Tensor:
        """Return f_c or f_f, float32 (n, D), of uint8 views (n, 3, S, S) or native crops (n, K, 3, C, C)."""
        views = views if views.ndim == 5 else views.unsqueeze(1)
        pixels = planar(views.flatten(0, 1), self.view)
        embedding: Tensor = (self.coarse if stream == "coarse" else self.fine)(pixels.view(-1, *views.shape[1:]))
        return embedding

    @torch.inference_mode()
    def encode_prompts(self, prompts: list[str]) -> PromptTokens:
        """Return T and m; a prompt is in vocabulary if at least half of its content words are."""
        ids, mask, truncated = self.tokenize(prompts)
        tokens = self.text(ids, mask)
        return PromptTokens(tokens, mask, truncated, [self.is_in_vocabulary(prompt) for prompt in prompts])

    @torch.inference_mode()
    def encode_templates(self, texts: list[str]) -> Tensor:
        """Return sentence embeddings of unit length, float32 (texts, D)."""
        ids, mask, _ = self.tokenize(texts)
        return self.text.sentence(self.text(ids, mask), mask)

    def tokenize(self, prompts: list[str]) -> tuple[Tensor, Tensor, list[bool]]:
        """Return ids int64 (batch, L), mask bool (batch, L), and which prompts were cut to fit."""
        rows = [[START, *self.tokenizer.encode(cleaned(prompt)).ids] for prompt in prompts]
        ids, mask, truncated = padded(rows, prompts, self.text.config.length, pad=PAD, keep_last=False)
        return ids.to(self.device), mask.to(self.device), truncated

    def is_in_vocabulary(self, prompt: str) -> bool:
        """Return whether at least half of the prompt's content words are in the vocabulary, and at least one is."""
        return is_in_vocabulary(self.tokenizer.encode(cleaned(prompt)), self.in_vocabulary)


def load_mini_pair(folder: Path = MINI, source: str = "mini") -> MiniPair:
    """Return the encoders of a folder, on the CPU in float32.

    Args:
        folder: holds config.json, model.safetensors and tokenizer.json.
        source: the name under which a saved model asks for them again.

    Raises:
        ModelError: a file is missing or broken, or the weights do not fit the config.
    """
    for name in _FILES:
        if not (folder / name).is_file():
            raise ModelError(f"Expected small encoders with {name} at {folder}, got none: check the path.")
    raw = [(folder / name).read_bytes() for name in _FILES]
    config = _config(raw[0], folder)
    stored, tokenizer = load_weights(raw[1], folder / "model.safetensors"), _tokenizer(raw[2], folder)
    weights = {k: v.float() if v.is_floating_point() else v for k, v in stored.items()}
    known = weights.pop("known", None)
    check_shapes(config.coarse, config.fine, config.text, weights, folder)
    check_tokenizer(tokenizer, config.text.words, known, folder)
    coarse, fine, text = Tower(config.coarse), Tower(config.fine), TextEncoder(config.text)
    if known is None:
        raise ModelError(f"Expected the tensor known in {folder / 'model.safetensors'}, which lacks it.")
    for name, part in (("coarse", coarse), ("fine", fine), ("text", text)):
        own = {k.removeprefix(f"{name}."): v for k, v in weights.items() if k.startswith(f"{name}.")}
        try:
            part.load_state_dict(own)
        except RuntimeError as error:
            reason = " ".join(str(error).split())
            raise ModelError(f"Expected the {name} encoder of config.json in {folder}, got {reason}") from error
    digest = hashlib.sha256(b"".join(raw)).hexdigest()
    parts = MiniParts(coarse, fine, text, tokenizer, known.bool())
    return MiniPair(config, parts, source, digest)


def save_mini_pair(folder: Path, config: MiniConfig, parts: MiniParts) -> None:
    """Write an encoder folder; weights become float16."""
    folder.mkdir(parents=True, exist_ok=True)
    modules: Mapping[str, torch.nn.Module] = {"coarse": parts.coarse, "fine": parts.fine, "text": parts.text}
    weights = {
        f"{name}.{key}": tensor.half().contiguous() if tensor.is_floating_point() else tensor
        for name, module in modules.items()
        for key, tensor in module.state_dict().items()
    }
    weights["known"] = parts.in_vocabulary.to(torch.uint8)
    (folder / "model.safetensors").write_bytes(safetensors.torch.save(weights, metadata={"format": "pt"}))
    parts.tokenizer.save(str(folder / "tokenizer.json"), pretty=False)
    text = json.dumps(dataclasses.asdict(config), indent=2) + "\n"
    (folder / "config.json").write_text(text, encoding="utf-8")


def _tokenizer(raw: bytes, folder: Path) -> Tokenizer:
    try:
        found = Tokenizer.from_str(raw.decode("utf-8"))
        found.no_padding()  # a file may ask for a billion
        found.no_truncation()
        return found
    except Exception as error:  # the library raises nothing narrower
        path = folder / "tokenizer.json"
        raise ModelError(f"Expected a tokenizer in {path}, got {shown(error)}: fetch it again.") from error


def _config(raw: bytes, folder: Path) -> MiniConfig:
    try:
        data: Any = json.loads(raw, object_hook=_tuples)
        if data.get("format") == FORMAT:
            kinds = {"coarse": TowerConfig, "fine": TowerConfig, "text": TextConfig, "view": ViewSpec}
            if problem := next((bad for name, kind in kinds.items() if (bad := misfit(kind, data[name]))), None):
                raise ModelError(f"Expected {problem}, in {folder / 'config.json'}: fetch the file again.")
            view = ViewSpec(**data["view"])
            if min(view.size, view.crop_size) < _LEAST_SIDE:
                raise ModelError(f"Expected views of {_LEAST_SIDE} pixels or more in {folder / 'config.json'}.")
            towers = [TowerConfig(**data[name]) for name in ("coarse", "fine")]
            return MiniConfig(towers[0], towers[1], TextConfig(**data["text"]), view)
        found = f"format {repr(data.get('format'))[:80]}"
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        if isinstance(error, ModelError):
            raise
        found = shown(error)
    raise ModelError(f"Expected small encoders of format {FORMAT} in {folder / 'config.json'}, got {found}.")


def _tuples(data: dict[str, Any]) -> dict[str, Any]:
    return {key: tuple(value) if isinstance(value, list) else value for key, value in data.items()}
