"""Adapters: small changes to frozen image encoders, kept in a model folder beside its weights.

    lora    W = W_0 + (lora_alpha / r) B A         files and names as PEFT writes them
    norm    the numbers by which a tower normalises, replaced

An adapter is merged when the encoders are loaded, so an adapted pair costs what the pair costs. Its hash enters the
pair's, so that features of the two never mix in a cache, and no model takes one pair for the other.
Source: Hu et al., "LoRA" (arXiv 2106.09685).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import safetensors.torch
import torch
from torch import Tensor, nn

from mst_clipiqa.encoders.checks import load_weights
from mst_clipiqa.encoders.pair import EncoderPair
from mst_clipiqa.errors import ModelError, shown

ADAPTER_CONFIG = "adapter_config.json"
ADAPTER_WEIGHTS = "adapter_model.safetensors"
ADAPTER_FILES = (ADAPTER_CONFIG, ADAPTER_WEIGHTS)
_PREFIX = "base_model.model."
_LORA_LAYERS = ("q_proj", "v_proj", "query", "value", "project")
"""Linear layers that LoRA changes: queries and values of attention; in ``mini``, the map to the embedding."""


@dataclass(frozen=True)
class Adapter:
    """A change of a pair's image encoders.

    Attributes:
        kind: "lora" or "norm".
        weights: of lora, "coarse.project.lora_A" (r, inputs) and "coarse.project.lora_B" (outputs, r), float32; of
            norm, "coarse.mean" and the like, of the shape that they replace.
        rank: r; 0 for norm.
        alpha: what B A is scaled by, times r.
    """

    kind: Literal["lora", "norm"]
    weights: Mapping[str, Tensor]
    rank: int = 0
    alpha: float = 0.0

    def replaced(self, base: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the tensors that the adapter changes, in full, from those of the base, by name."""
        if self.kind == "norm":
            return dict(self.weights)
        layers = sorted({name.rpartition(".")[0] for name in self.weights})
        return {
            f"{layer}.weight": base[f"{layer}.weight"].float()
            + self.alpha / self.rank * (self.weights[f"{layer}.lora_B"] @ self.weights[f"{layer}.lora_A"])
            for layer in layers
        }


def towers(pair: EncoderPair) -> nn.ModuleDict:
    """Return the two image encoders of a pair by stream; ModelError if it has none that can be changed."""
    inner: Any = getattr(pair, "mstfe", None)
    owner, names = (pair, ("coarse", "fine")) if inner is None else (inner, ("encoder_coarse", "encoder_fine"))
    found: list[Any] = [getattr(owner, name, None) for name in names]
    if not all(isinstance(tower, nn.Module) for tower in found):
        raise ModelError(f"Expected image encoders that can be adapted, got {pair.source}: use --train fusion.")
    return nn.ModuleDict(dict(zip(("coarse", "fine"), found, strict=True)))


def new_adapter(pair: EncoderPair, kind: Literal["lora", "norm"], rank: int = 4, seed: int = 0) -> Adapter:
    """Return an adapter that changes nothing yet.

    Args:
        pair: the encoders.
        kind: "lora" or "norm".
        rank: r, of lora.
        seed: of A; B is 0.

    Raises:
        ModelError: the pair has nothing that such an adapter could change.
    """
    both = towers(pair)
    if kind == "norm":
        weights = {name: tensor.detach().float().clone() for name, tensor in _norms(both).items()}
        adapter = Adapter("norm", weights)
    else:
        generator = torch.Generator().manual_seed(seed)
        weights = {}
        for name, layer in both.named_modules():
            if isinstance(layer, nn.Linear) and name.rpartition(".")[2] in _LORA_LAYERS:
                a = torch.randn(rank, layer.in_features, generator=generator) / layer.in_features**0.5
                weights |= {f"{name}.lora_A": a, f"{name}.lora_B": torch.zeros(layer.out_features, rank)}
        adapter = Adapter("lora", weights, rank, 2.0 * rank)
    if not weights:
        raise ModelError(f"Expected image encoders that {kind} can adapt, got {pair.source}: use --train fusion.")
    return adapter


def _norms(both: nn.ModuleDict) -> dict[str, Tensor]:
    """Return the weights of the towers' norms: layer norms, or the mean and scale of ``mini``'s pooled numbers."""
    found: dict[str, Tensor] = {}
    for name, module in both.named_modules():
        if isinstance(module, nn.LayerNorm):
            found |= {f"{name}.{key}": tensor for key, tensor in module.named_parameters()}
    return found | {f"{name}": tensor for name, tensor in both.named_buffers() if name.endswith((".mean", ".scale"))}


@torch.no_grad()
def merge_adapter(pair: EncoderPair, adapter: Adapter, digest: str) -> EncoderPair:
    """Change the pair's image encoders in place, and its hash; returns the pair.

    Raises:
        ModelError: the adapter is for other encoders.
    """
    both = towers(pair)
    fused: list[Any] = [tower for tower in both.values() if getattr(tower, "fused", None)]
    for tower in fused:
        tower.release()
    state = both.state_dict(keep_vars=True)
    try:
        replaced = adapter.replaced(state)
        misfit = next((name for name, new in replaced.items() if new.shape != state[name].shape), None)
    except (KeyError, RuntimeError) as error:
        misfit = str(error)
    if misfit is not None:
        raise ModelError(f"Expected an adapter for {pair.source}, got one with {shown(misfit)}: copy the whole folder.")
    for name, new in replaced.items():
        state[name].copy_(new)
    for tower in fused:
        tower.fuse()
    vars(pair)["sha256"] = adapted_sha256(pair.sha256, digest)
    if isinstance(fast := getattr(pair, "_fast", None), dict):  # towers prepared from the weights before
        fast.clear()
    return pair


def adapted_sha256(base: str, adapter: str) -> str:
    """Return the hash of a pair with this hash and an adapter with that one."""
    return hashlib.sha256(f"{base} {adapter}".encode()).hexdigest()


def adapter_files(adapter: Adapter, base: str) -> dict[str, bytes]:
    """Return the files of an adapter, name -> content; ``base`` is the source of the encoders that it changes."""
    stored = {_stored(name): tensor.detach().contiguous().cpu() for name, tensor in adapter.weights.items()}
    config: dict[str, Any] = {"peft_type": adapter.kind.upper(), "base_model_name_or_path": base}
    if adapter.kind == "lora":
        layers = sorted({name.rpartition(".")[0] for name in adapter.weights})
        config |= {"r": adapter.rank, "lora_alpha": adapter.alpha, "target_modules": layers, "lora_dropout": 0.0}
        config |= {"bias": "none", "fan_in_fan_out": False, "inference_mode": True, "task_type": None}
    weights = safetensors.torch.save(stored, metadata={"format": "pt"})
    return {ADAPTER_CONFIG: (json.dumps(config, indent=2) + "\n").encode(), ADAPTER_WEIGHTS: weights}


def files_sha256(files: Mapping[str, bytes]) -> str:
    """Return the hash of an adapter's files."""
    return hashlib.sha256(files[ADAPTER_CONFIG] + files[ADAPTER_WEIGHTS]).hexdigest()


def read_adapter(folder: Path, digest: str) -> Adapter:
    """Return the adapter of a model folder.

    Args:
        folder: holds adapter_config.json and adapter_model.safetensors.
        digest: the hash of both, as the folder's config.json names it.

    Raises:
        ModelError: a file is missing or broken, or another one than config.json names.
    """
    paths = [folder / name for name in (ADAPTER_CONFIG, ADAPTER_WEIGHTS)]
    if missing := [path.name for path in paths if not path.is_file()]:
        raise ModelError(f"Expected {missing[0]} beside config.json at {folder}, got none: copy the whole folder.")
    files = {path.name: path.read_bytes() for path in paths}
    if files_sha256(files) != digest:
        raise ModelError(f"Expected the adapter that config.json names in {folder}, got another: copy all files.")
    stored = load_weights(files[ADAPTER_WEIGHTS], paths[1])
    weights = {name.removeprefix(_PREFIX).removesuffix(".weight"): tensor for name, tensor in stored.items()}
    try:
        config = json.loads(files[ADAPTER_CONFIG])
        if config["peft_type"] == "LORA":
            return Adapter("lora", weights, int(config["r"]), float(config["lora_alpha"]))
        if config["peft_type"] == "NORM":
            return Adapter("norm", {name.removeprefix(_PREFIX): tensor for name, tensor in stored.items()})
        found = f"peft_type {config['peft_type']!r}"
    except (ValueError, KeyError, TypeError) as error:
        found = shown(error)
    raise ModelError(f"Expected an adapter of the kind lora or norm in {paths[0]}, got {found}: adapt again.")


def _stored(name: str) -> str:
    """Return the name of a tensor in a file: PEFT calls the two factors ``lora_A.weight`` and ``lora_B.weight``."""
    return f"{_PREFIX}{name}.weight" if name.endswith((".lora_A", ".lora_B")) else f"{_PREFIX}{name}"
