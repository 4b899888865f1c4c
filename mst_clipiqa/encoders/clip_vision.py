"""CLIP's image encoder: the projected [CLS] embedding of each view, and nothing else.

The weights stay in the ``transformers`` module that loaded them; the forward pass is ours, for three reasons.

- Only the [CLS] row is needed, so the last block computes queries, output and MLP for that row alone.
- In bf16 and fp16 only the matrix products are reduced. The residual sum stays float32: rounding it at each of 24
  additions changes an embedding three times as much as all the products do.
- quick_gelu(h) = silu(1.702 h) / 1.702, and a product can scale its result: in bf16 and fp16 this takes one pass over
  the largest array instead of three.

On a CPU all blocks but the last are computed by ``fused_block.py`` in bf16 and, if asked, float32, and by
``int8_vision.py`` in int8. On a CUDA card the whole pass is recorded once and replayed (``recorded.py``).

Source: CLIP (arXiv 2103.00020).
"""

from __future__ import annotations

from typing import Any, TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import CLIPVisionModelWithProjection

from mst_clipiqa.encoders.fused_block import QUICK, FusedBlock, can_fuse
from mst_clipiqa.encoders.int8_vision import Int8Block
from mst_clipiqa.encoders.int8_weights import SumBits
from mst_clipiqa.encoders.merging import merged, no_merges
from mst_clipiqa.encoders.recorded import Recorded
from mst_clipiqa.model.shapes import Embeddings, Pixels

FastBlock: TypeAlias = FusedBlock | Int8Block


class VisionTower(nn.Module):
    """Normalised pixels (batch, 3, S, S) to projected [CLS] embeddings, float32 (batch, D), not normalised."""

    def __init__(self, clip: CLIPVisionModelWithProjection) -> None:
        """Wrap a loaded model."""
        super().__init__()
        self.clip = clip
        self.merged_tokens = 0
        self.sum_bits: SumBits | None = None  # of products in int8, as ``sum_bits`` finds them; None: not in int8
        self.fuses_fp32 = False  # which leaves no weights to follow gradients through
        self.fused: list[FastBlock] = []  # of the first blocks, after ``fuse``
        self.recorded: Recorded | None = None  # the whole pass, after ``fuse``

    @property
    def patches(self) -> int:
        """How many patches a view has."""
        count: int = self.clip.vision_model.embeddings.num_patches
        return count

    def merge_tokens(self, count: int) -> VisionTower:
        """Merge this many tokens in each block but the last (``merging.py``); 0 merges none."""
        self.merged_tokens = count
        return self

    def compute_in(self, dtype: torch.dtype) -> VisionTower:
        """Compute the matrix products of all blocks in ``dtype``; norms, positions and the projection stay float32."""
        self.release()
        for module in self.clip.vision_model.modules():
            if isinstance(module, nn.Linear | nn.Conv2d):
                module.to(dtype)
        return self

    def fuse(self) -> VisionTower:
        """Prepare for inference where that is faster: on a CPU in bf16, int8 or, if asked, float32; on a CUDA card.

        Weights cannot be read or replaced until ``release``.
        """
        *layers, last = self.clip.vision_model.encoder.layers
        device = last.mlp.fc1.weight.device.type
        if device == "cuda":
            self.recorded = Recorded(self.computed)
        if self.fused or device != "cpu":
            return self
        if self.sum_bits is not None:
            self.fused = [Int8Block(layer, self.sum_bits) for layer in layers]
        elif can_fuse(last, self.dtype) and (self.dtype != torch.float32 or self.fuses_fp32):
            self.fused = [FusedBlock(layer) for layer in layers]
        return self

    def release(self) -> VisionTower:
        """Undo ``fuse``."""
        for block in self.fused:
            block.release()
        self.fused, self.recorded = [], None
        return self

    def _apply(self, fn: Any, recurse: bool = True) -> VisionTower:
        """Undo ``fuse`` before the weights move."""
        self.release()
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        return self

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the matrix products."""
        dtype: torch.dtype = self.clip.vision_model.embeddings.patch_embedding.weight.dtype
        return dtype

    def forward(self, pixels: Pixels) -> Embeddings:
        """Return CLIP's ``image_embeds``, float32, of pixels of any floating dtype."""
        if self.recorded and torch.is_inference_mode_enabled() and not self.merged_tokens:
            return self.recorded(pixels)
        return self.computed(pixels)

    def computed(self, pixels: Pixels) -> Embeddings:
        """Return the same embeddings as ``forward``, never from a recording."""
        vision = self.clip.vision_model
        x = vision.pre_layrnorm(_tokens(vision.embeddings, pixels.to(self.dtype)))
        sizes = None
        for i, layer in enumerate(vision.encoder.layers[:-1]):
            fused = self.fused[i] if self.fused else None
            if self.merged_tokens:
                sizes = no_merges(x) if sizes is None else sizes
                x, sizes = _merging_block(layer, x, sizes, self.merged_tokens, fused)
            else:
                x = _after_mlp(layer, _after_attention(layer, x, x.shape[1], None, fused)[0], fused)
        if self.sum_bits is None and not self.fuses_fp32:
            return self._last_block(x, sizes)
        # Integers, and fused blocks in float32, are the same in any batch. What follows is rounded differently for
        # another number of images.
        each = [None] * len(x) if sizes is None else sizes.split(1)
        return torch.cat([self._last_block(*image) for image in zip(x.split(1), each, strict=True)])

    def _last_block(
        self, x: Float[Tensor, "batch tokens width"], sizes: Float[Tensor, "batch tokens 1"] | None
    ) -> Embeddings:
        """Return the projected [CLS] embeddings, from the input of the last block."""
        vision = self.clip.vision_model
        last = vision.encoder.layers[-1]
        first = _after_mlp(last, _after_attention(last, x, 1, sizes)[0])[:, 0]
        embedding: Tensor = self.clip.visual_projection(vision.post_layernorm(first))
        return embedding


def _tokens(embeddings: Any, pixels: Pixels) -> Float[Tensor, "batch tokens width"]:
    """Return [CLS] and patches with their positions, float32 (batch, 1 + patches, width)."""
    patches = embeddings.patch_embedding(pixels).flatten(2).transpose(1, 2)
    patches = patches.to(torch.promote_types(patches.dtype, torch.float32))
    first = embeddings.class_embedding.expand(patches.shape[0], 1, -1)
    positions: Tensor = embeddings.position_embedding.weight
    return torch.cat([first, patches], dim=1) + positions


def _merging_block(
    layer: Any,
    x: Float[Tensor, "batch tokens width"],
    sizes: Float[Tensor, "batch tokens 1"],
    count: int,
    fused: FastBlock | None,
) -> tuple[Float[Tensor, "batch fewer width"], Float[Tensor, "batch fewer 1"]]:
    """Return a block's output with some tokens merged between attention and MLP, and the sizes of tokens."""
    x, key = _after_attention(layer, x, x.shape[1], sizes, fused)
    x, sizes = merged(x, sizes, key, count)
    return _after_mlp(layer, x, fused), sizes


def _after_attention(
    layer: Any,
    x: Float[Tensor, "batch tokens width"],
    rows: int,
    sizes: Float[Tensor, "batch tokens 1"] | None,
    fused: FastBlock | None = None,
) -> tuple[Float[Tensor, "batch {rows} width"], Float[Tensor, "batch heads tokens d"]]:
    """Return the first rows of x after attention, and the keys of all; a fused block changes x itself."""
    bias = None if sizes is None else sizes.log().transpose(1, 2)
    if fused is not None:
        query, key, value = fused.projected(x)
        return fused.add_attention(x, _attend(query, key, value, bias)), key
    attention, dtype = layer.self_attn, layer.mlp.fc1.weight.dtype
    normed = layer.layer_norm1(x).to(dtype)
    split = (normed.shape[0], -1, attention.num_heads, attention.head_dim)
    query = attention.q_proj(normed[:, :rows]).view(split).transpose(1, 2)
    key, value = (project(normed).view(split).transpose(1, 2) for project in (attention.k_proj, attention.v_proj))
    attended = _attend(query, key, value, bias)
    return x[:, :rows] + attention.out_proj(attended.transpose(1, 2).flatten(2)), key


def _after_mlp(
    layer: Any, x: Float[Tensor, "batch tokens width"], fused: FastBlock | None = None
) -> Float[Tensor, "batch tokens width"]:
    """Return x after a block's MLP; a fused block changes x itself."""
    if fused is not None:
        return fused.add_mlp(x)
    return x + _mlp(layer.mlp, layer.layer_norm2(x).to(layer.mlp.fc1.weight.dtype))


def _attend(
    query: Float[Tensor, "batch heads rows d"],
    key: Float[Tensor, "batch heads tokens d"],
    value: Float[Tensor, "batch heads tokens d"],
    bias: Float[Tensor, "batch 1 tokens"] | None = None,
) -> Float[Tensor, "batch heads rows d"]:
    """Return softmax(query . key / sqrt(d) + bias) . value, (batch, heads, rows, d).

    On a CPU torch's fused bf16 attention is slower than plain products image by image, which stay in the cache. Their
    logits are rounded once, to bf16: an embedding's error grows by 2 % if the logits' standard deviation is 1.7.
    """
    if query.device.type != "cpu" or query.dtype.itemsize >= 4 or query.shape[2] == 1:
        mask = None if bias is None else bias.unsqueeze(1).to(query.dtype)
        return F.scaled_dot_product_attention(query, key, value, attn_mask=mask)
    out = torch.empty_like(query)
    scale = query.shape[3] ** -0.5
    for i, (q, k, v) in enumerate(zip(query, key, value, strict=True)):
        logits = torch.bmm(q, k.transpose(1, 2)).mul_(scale)
        if bias is not None:
            logits += bias[i]
        torch.bmm(logits.softmax(dim=-1, dtype=torch.float32).to(v.dtype), v, out=out[i])
    return out


def _mlp(mlp: Any, x: Float[Tensor, "batch rows width"]) -> Float[Tensor, "batch rows width"]:
    if mlp.config.hidden_act != "quick_gelu" or x.dtype.itemsize >= 4:  # a form that int8 export recognises
        whole: Tensor = mlp(x)
        return whole
    up, down = mlp.fc1, mlp.fc2
    hidden = torch.addmm(up.bias, x.flatten(0, 1), up.weight.T, beta=QUICK, alpha=QUICK)
    out = torch.addmm(down.bias, F.silu(hidden, inplace=True), down.weight.T, alpha=1 / QUICK)
    return out.view(x.shape)
