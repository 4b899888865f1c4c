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
from safetensors import SafetensorError
from tokenizers import Tokenizer
from torch import Tensor

from mst_clipiqa.encoders.checks import check_finite, misfit
from mst_clipiqa.encoders.mini.checks import check_shapes, check_tokenizer
from mst_clipiqa.encoders.mini.towers import TextConfig, TextEncoder, Tower, TowerConfig
from mst_clipiqa.encoders.mini.vocabulary import is_known
from mst_clipiqa.encoders.threads import filled, side_by_side
from mst_clipiqa.errors import ModelError, shown
from mst_clipiqa.model.mstfe import PromptTokens
from mst_clipiqa.model.preprocess import ViewSpec, planar

MINI = Path(__file__).parents[2] / "weights" / "mini" / "encoders"
FORMAT = 3
PAD, UNKNOWN, START = 0, 1, 2

_LEAST_SIDE = 16  # of a view: its statistics need as many pixels
_GROUP = 4  # images encoded together
_FILES = ("config.json", "model.safetensors", "tokenizer.json")
_MAX_CHARS = 20_000  # of a prompt: far more than is read, and few enough to tokenize in milliseconds


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
    known: Tensor  # bool, (words,)


class MiniPair:
    """Two towers over statistics and a text encoder as an ``EncoderPair``."""

    def __init__(self, config: MiniConfig, parts: MiniParts, source: str, sha256: str = "") -> None:
        """Take the parts ready built; ``load_mini_pair`` is the way from files."""
        self.coarse, self.fine = (tower.eval().requires_grad_(False) for tower in (parts.coarse, parts.fine))
        self.text = parts.text.eval().requires_grad_(False)
        self.tokenizer = parts.tokenizer
        self.known = parts.known
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

    @torch.inference_mode()
    def encode_views(self, coarse: Tensor, fine: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return f_c, f_f, float32 (batch, D), of uint8 views (batch, 3, S, S) and (batch, K, 3, C, C)."""
        fine = coarse if fine is None else fine
        f_c, f_f = self._encode((self.coarse, coarse), (self.fine, fine))
        return f_c, f_f

    @torch.inference_mode()
    def encode_coarse(self, coarse: Tensor) -> Tensor:
        """Return f_c alone, float32 (batch, D)."""
        return self._encode((self.coarse, coarse))[0]

    @torch.inference_mode()
    def encode_fine(self, fine: Tensor) -> Tensor:
        """Return f_f alone, float32 (batch, D), of native crops (batch, K, 3, C, C) or the coarse view."""
        return self._encode((self.fine, fine))[0]

    def _encode(self, *asked: tuple[Tower, Tensor]) -> list[Tensor]:
        """Return the embeddings of views by towers; on a processor a few images by one thread, as many as cores.

        What is computed of an image is too little to be shared between threads, and one at a time most of it would
        be Python's own. Groups are always of one size, so that neither an image's batch mates nor the number of cores
        can change its rounding.
        """
        asked = tuple((tower, views if views.ndim == 5 else views.unsqueeze(1)) for tower, views in asked)
        if self.device.type != "cpu":
            return [self._encode_group(tower, views) for tower, views in asked]
        tasks = [(tower, filled(group, _GROUP)) for tower, views in asked for group in torch.split(views, _GROUP)]
        found = side_by_side(self.device, lambda task: self._encode_group(*task), tasks, torch.get_num_threads())
        parts = torch.cat(found).chunk(len(asked))
        return [rows[: len(views)] for rows, (_, views) in zip(parts, asked, strict=True)]

    def _encode_group(self, tower: Tower, views: Tensor) -> Tensor:
        pixels = planar(views.flatten(0, 1), self.view)
        embedding: Tensor = tower(pixels.view(-1, *views.shape[1:]))
        return embedding

    @torch.inference_mode()
    def encode_prompts(self, prompts: list[str]) -> PromptTokens:
        """Return T and m; ``known`` is False where fewer than half of a prompt's content words are."""
        ids, mask, truncated = self.tokenize(prompts)
        tokens = self.text(ids, mask)
        return PromptTokens(tokens, mask, truncated, [self.is_known(prompt) for prompt in prompts])

    @torch.inference_mode()
    def encode_templates(self, texts: list[str]) -> Tensor:
        """Return sentence embeddings of unit length, float32 (texts, D)."""
        ids, mask, _ = self.tokenize(texts)
        return self.text.sentence(self.text(ids, mask), mask)

    def tokenize(self, prompts: list[str]) -> tuple[Tensor, Tensor, list[bool]]:
        """Return ids int64 (batch, L), mask bool (batch, L), and which prompts were cut to fit."""
        length = self.text.config.length
        rows = [[START, *self.tokenizer.encode(_clean(prompt)).ids] for prompt in prompts]
        truncated = [len(r) > length or len(p) > _MAX_CHARS for r, p in zip(rows, prompts, strict=True)]
        rows = [row[:length] for row in rows]
        ids = torch.full((len(rows), max(len(row) for row in rows)), PAD)
        for i, row in enumerate(rows):
            ids[i, : len(row)] = torch.tensor(row)
        lengths = torch.tensor([len(row) for row in rows])
        mask = torch.arange(ids.shape[1]) < lengths.unsqueeze(1)
        return ids.to(self.device), mask.to(self.device), truncated

    def is_known(self, prompt: str) -> bool:
        """Return whether at least half of the prompt's content words are known, and at least one is."""
        return is_known(self.tokenizer.encode(_clean(prompt)), self.known)


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
    weights, tokenizer = _weights(raw[1], folder), _tokenizer(raw[2], folder)
    check_finite(weights, str(folder / "model.safetensors"))
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
    weights["known"] = parts.known.to(torch.uint8)
    (folder / "model.safetensors").write_bytes(safetensors.torch.save(weights, metadata={"format": "pt"}))
    parts.tokenizer.save(str(folder / "tokenizer.json"), pretty=False)
    text = json.dumps(dataclasses.asdict(config), indent=2) + "\n"
    (folder / "config.json").write_text(text, encoding="utf-8")


def _weights(raw: bytes, folder: Path) -> dict[str, Tensor]:
    try:
        weights = safetensors.torch.load(raw)
    except (SafetensorError, ValueError, KeyError, RuntimeError) as error:
        path = folder / "model.safetensors"
        raise ModelError(f"Expected safetensors in {path}, got {shown(error)}: fetch it again.") from error
    return {k: v.float() if v.is_floating_point() else v for k, v in weights.items()}


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


def _clean(prompt: str) -> str:
    return prompt[:_MAX_CHARS].encode("utf-8", "replace").decode("utf-8").replace("\0", " ")
