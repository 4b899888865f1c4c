"""How much of a score comes from the coarse stream and how much from the fine one: gate, share, score alone.

    z_c = g * (W_c f_c + b_c)        z_f = (1 - g) * (W_f f_f + b_f)        z = z_c + z_f

Source: section 3.2 of the paper for z; the split is exact, since the fusion is a sum.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from mst_clipiqa.errors import ModelError
from mst_clipiqa.explain.results import Fusion
from mst_clipiqa.features.encoded import Encoded, EncodedPrompt
from mst_clipiqa.model.heads import PromptHead
from mst_clipiqa.model.mst_clipiqa import MSTCLIPIQA, to_native, zero_shot
from mst_clipiqa.scoring.predictor import Predictor


@torch.inference_mode()
def fusion(predictor: Predictor, name: str, encoded: Encoded, prompt: EncodedPrompt | None) -> Fusion:
    """Return the shares of both streams in the score of one target."""
    target = predictor.config.targets[name]
    pair, parts = predictor.encoders, predictor.model.parts
    part = parts[name] if name in parts else zero_shot(pair.dim, pair.dim_fine)
    f_c, f_f = encoded.f_c.unsqueeze(0), encoded.f_f.unsqueeze(0)
    g, z = part.gff(f_c, f_f)
    z_c, z_f = g * part.gff.W_c(f_c), (1 - g) * part.gff.W_f(f_f)
    if target.head == "similarity":
        alone = _cosine(torch.cat([z_c, z_f]), prompt)
    else:
        q = to_native(_head(predictor, part, torch.cat([z_c, z_f]), prompt), target.low, target.high)
        alone = q.clamp(target.low, target.high)
    return Fusion(
        gate=g.mean().item(),
        gates=g[0].numpy(),
        share=((z_c * z).sum() / (z * z).sum().clamp_min(1e-12)).item(),
        coarse_alone=alone[0].item(),
        fine_alone=alone[1].item(),
    )


def _head(predictor: Predictor, part: MSTCLIPIQA, z: Tensor, prompt: EncodedPrompt | None) -> Tensor:
    """Return q, (batch,), on the head's scale, for fused features (batch, D)."""
    if isinstance(part.head, PromptHead):
        tokens = _given(prompt).tokens.expand(len(z), -1, -1)
        found: Tensor = part.head(z, tokens, torch.ones(tokens.shape[:2], dtype=torch.bool))
        return found
    q: Tensor = part.head(z, predictor.templates)[0]
    return q


def _cosine(z: Tensor, prompt: EncodedPrompt | None) -> Tensor:
    embedding = _given(prompt).embedding
    if embedding is None:
        raise ModelError("Expected an embedding of the prompt for similarity, got none: use the same predictor.")
    return (F.normalize(z, dim=-1) * embedding).sum(dim=1)


def _given(prompt: EncodedPrompt | None) -> EncodedPrompt:
    if prompt is None:
        raise ModelError("Expected a prompt for a head that reads prompts, got none: leave its target out.")
    return prompt
