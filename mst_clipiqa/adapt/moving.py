"""What moves, and how the output follows from it.

    fusion     W_h, W_g, W_c, W_f of one target; features are computed once
    norm       what the image encoders normalise with
    lora:R     a product of two thin matrices beside some of the encoders' own

All else is frozen. For ``mini`` the convolutions run once too: only what follows its pooled numbers is repeated.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol, cast

import torch
from torch import Tensor, nn
from torch.func import functional_call

from mst_clipiqa.encoders.adapter import Adapter, towers
from mst_clipiqa.encoders.clip_vision import VisionTower
from mst_clipiqa.encoders.mini.fused import FusedTower
from mst_clipiqa.encoders.mini.pair import MiniPair
from mst_clipiqa.encoders.mini.towers import Tower
from mst_clipiqa.encoders.pair import EncoderPair
from mst_clipiqa.encoders.precision import DTYPES, resolve_precision
from mst_clipiqa.errors import UsageError, shown
from mst_clipiqa.features.encoding import encode_viewed
from mst_clipiqa.features.opened import Viewed
from mst_clipiqa.model.mst_clipiqa import MSTCLIPIQA, Output, Text
from mst_clipiqa.model.mstfe import Stream
from mst_clipiqa.model.preprocess import ViewSpec, normalised

Kind = Literal["fusion", "norm", "lora"]
BOTH_STREAMS: tuple[Stream, Stream] = ("coarse", "fine")
_MOST_RANK = 256


@dataclass(frozen=True)
class Material:
    """What is computed once of each version of each image: features, or what the moving part begins with.

    Attributes:
        coarse, fine: (rows, ...), of one shape and dtype each.
    """

    coarse: Tensor
    fine: Tensor

    def __getitem__(self, rows: Tensor) -> Material:
        """Return some rows."""
        return Material(self.coarse[rows], self.fine[rows])


class Moving(Protocol):
    """A model of which some parameters move.

    Attributes:
        features_move: whether f_c and f_f move, and with them what other targets see.
    """

    features_move: bool

    def prepare(self, viewed: Sequence[Viewed]) -> Material:
        """Return the material of some images, on the CPU."""

    def parameters(self) -> dict[str, Tensor]:
        """Return the parameters that move, by name; no other receives a gradient."""

    def features(self, material: Material) -> tuple[Tensor, Tensor]:
        """Return f_c and f_f, float32 (rows, D)."""

    def output(self, f_c: Tensor, f_f: Tensor) -> Output:
        """Return the output for the target that is adapted."""

    def final_part(self) -> MSTCLIPIQA:
        """Return the target's fusion and head as they are now, frozen."""


def parse_train(train: str) -> tuple[Kind, int]:
    """Return the kind and rank of "fusion", "norm" or "lora:R"; UsageError for anything else."""
    kind, colon, rank = train.partition(":")
    if train in ("fusion", "norm"):
        return cast(Kind, train), 0
    if kind == "lora" and (not colon or (rank.isdecimal() and 1 <= int(rank) <= _MOST_RANK)):
        return "lora", int(rank) if colon else 4
    raise UsageError(f"Expected --train fusion, norm or lora:R with a rank up to {_MOST_RANK}, got {shown(train)}.")


class MovingFusion:
    """The fusion of one target moves.

    Args:
        encoders: frozen.
        part: fusion and head of the target; copied.
        text: what the head reads.
    """

    features_move = False

    def __init__(self, encoders: EncoderPair, part: MSTCLIPIQA, text: Text) -> None:
        self.encoders, self.text = encoders, text
        self.part = copy.deepcopy(part).requires_grad_(False)
        self.part.gff.requires_grad_(True)

    def prepare(self, viewed: Sequence[Viewed]) -> Material:
        """Return the features of some images."""
        return Material(*(f.clone() for f in encode_viewed(self.encoders, viewed)))

    def parameters(self) -> dict[str, Tensor]:
        """Return the weights and biases of the fusion."""
        return {f"gff.{name}": p for name, p in self.part.gff.named_parameters()}

    def features(self, material: Material) -> tuple[Tensor, Tensor]:
        """Return the features, which are the material."""
        return material.coarse, material.fine

    def output(self, f_c: Tensor, f_f: Tensor) -> Output:
        """Return the output of the moving fusion and the frozen head."""
        out: Output = self.part(f_c, f_f, self.text)
        return out

    def final_part(self) -> MSTCLIPIQA:
        """Return a frozen copy of the fusion and head."""
        return copy.deepcopy(self.part).eval().requires_grad_(False)


class MovingEncoders:
    """An adapter of the image encoders moves.

    Args:
        encoders: frozen; the adapter's changes are computed beside them.
        part: fusion and head of the target, frozen.
        text: what the head reads.
        adapter: that changes nothing yet.
    """

    features_move = True

    def __init__(self, encoders: EncoderPair, part: MSTCLIPIQA, text: Text, adapter: Adapter) -> None:
        self.encoders, self.part, self.text = encoders, part, text
        self.adapter = replace(adapter, weights={n: t.requires_grad_(True) for n, t in adapter.weights.items()})
        both = towers(encoders)
        self.base = {name: tensor.detach() for name, tensor in both.state_dict().items()}
        self.tails = {stream: _tail(encoders, stream, both[stream], adapter.kind) for stream in BOTH_STREAMS}

    @torch.inference_mode()
    def prepare(self, viewed: Sequence[Viewed]) -> Material:
        """Return the input of the adapted layers: pooled numbers for ``mini``, else views."""
        coarse = torch.stack([one.coarse for one in viewed])
        crops = [one.fine for one in viewed if one.fine is not None]
        fine = torch.stack(crops) if crops else coarse
        found = [tail.begin(views) for tail, views in zip(self.tails.values(), (coarse, fine), strict=True)]
        return Material(*(one.cpu().clone() for one in found))

    def parameters(self) -> dict[str, Tensor]:
        """Return the adapter's tensors."""
        return dict(self.adapter.weights)

    def features(self, material: Material) -> tuple[Tensor, Tensor]:
        """Return the features that follow from the adapter as it is."""
        changed = self.adapter.replaced(self.base)
        found = []
        for stream, begun in zip(BOTH_STREAMS, (material.coarse, material.fine), strict=True):
            own = {f"tower.{n.removeprefix(f'{stream}.')}": t for n, t in changed.items() if n.startswith(f"{stream}.")}
            found.append(functional_call(self.tails[stream], own, (begun.to(self.encoders.device),)).cpu())
        return found[0], found[1]

    def output(self, f_c: Tensor, f_f: Tensor) -> Output:
        """Return the output of the frozen fusion and head."""
        out: Output = self.part(f_c, f_f, self.text)
        return out

    def final_part(self) -> MSTCLIPIQA:
        """Return the fusion and head, which did not move."""
        return self.part

    def final(self) -> Adapter:
        """Return the adapter as it is now."""
        return replace(self.adapter, weights={n: t.detach().clone() for n, t in self.adapter.weights.items()})


class _MiniTail(nn.Module):
    """From the pooled numbers of views to the embedding; for lora, from their standardised mean."""

    def __init__(self, pair: MiniPair, tower: Tower, kind: str) -> None:
        super().__init__()
        self.pair, self.tower, self.kind = pair, tower, kind

    def begin(self, views: Tensor) -> Tensor:
        """Return the input of the adapted layers, float32 (images, K, inputs) or (images, inputs)."""
        crops = views.unsqueeze(1) if views.ndim == 4 else views
        fused = self.pair.device.type == "cpu"
        own = self.pair.precision if self.pair.precision in DTYPES else resolve_precision("auto", self.pair.device)
        dtype = DTYPES[own] if fused else torch.float32
        pixels = normalised(crops.flatten(0, 1).to(self.pair.device), self.pair.view, dtype)
        numbers = FusedTower(self.tower, dtype).numbers if fused else self.tower.numbers
        found = torch.stack([numbers(some) for some in pixels.unflatten(0, crops.shape[:2])])
        return found if self.kind == "norm" else self.tower.standardise(found).mean(1)

    def forward(self, begun: Tensor) -> Tensor:
        f: Tensor = self.tower.embed(self.tower.standardise(begun).mean(1) if self.kind == "norm" else begun)
        return f


class _ViewTail(nn.Module):
    """The whole tower, from views on."""

    def __init__(self, view: ViewSpec, tower: nn.Module) -> None:
        super().__init__()
        self.view, self.tower = view, tower
        if isinstance(tower, VisionTower):
            tower.release()  # its weights are to be replaced

    def begin(self, views: Tensor) -> Tensor:
        """Return the views as they are."""
        return views

    def forward(self, views: Tensor) -> Tensor:
        crops = views.unsqueeze(1) if views.ndim == 4 else views
        pixels = normalised(crops.flatten(0, 1), self.view, torch.float32)
        per_crop: Tensor = self.tower(pixels).float()
        f: Tensor = per_crop.unflatten(0, crops.shape[:2]).mean(dim=1)
        return f


def _tail(pair: EncoderPair, stream: Stream, tower: nn.Module, kind: str) -> Any:
    if isinstance(pair, MiniPair) and isinstance(tower, Tower):
        return _MiniTail(pair, tower, kind)
    return _ViewTail(pair.view.of(stream), tower)
