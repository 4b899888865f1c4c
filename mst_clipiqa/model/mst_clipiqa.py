"""The trained part as one module: GFF and one head, over features, never pixels.

The frozen encoders that compute the features are not part of it, so a checkpoint holds only trained weights: 722,561
with the template head and 2,299,010 with the prompt head at D = 512. Parameter names are the paper's. Source: figure 2.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from jaxtyping import Float
from torch import Tensor, nn

from mst_clipiqa.errors import ModelError
from mst_clipiqa.model.gff import GFF
from mst_clipiqa.model.heads import PromptHead, TemplateHead
from mst_clipiqa.model.shapes import (
    CoarseEmbeddings,
    Embeddings,
    FineEmbeddings,
    LevelWeights,
    Scores,
    Templates,
    TokenMask,
    TokenStates,
    TokenWeights,
)

Head = Literal["template", "prompt"]


@dataclass(frozen=True)
class Output:
    """The trained part's output for a batch.

    Attributes:
        q: scores on the head's scale 1..5, float (batch,).
        g: the gate, float (batch, D) in (0, 1): the share of the coarse stream.
        z: the fused feature, float (batch, D).
        p: probability of the five levels, float (batch, 5); None for the prompt head.
        attention: attention over the prompt's tokens, float (batch, L); None for the template head.
    """

    q: Scores
    g: Embeddings
    z: Embeddings
    p: LevelWeights | None = None
    attention: TokenWeights | None = None


@dataclass(frozen=True)
class Text:
    """The text of a batch: ``templates`` (5, D) for the template head; ``tokens`` and ``mask`` for the prompt head."""

    templates: Templates | None = None
    tokens: TokenStates | None = None
    mask: TokenMask | None = None


class MSTCLIPIQA(nn.Module):
    """Gated fusion and one head."""

    def __init__(self, dim: int, head: Head, dim_fine: int | None = None) -> None:
        """Build for features of size D = ``dim``; ModelError for an unknown head or a size that does not fit it.

        Args:
            dim: D, the size of f_c, of the fused feature and of the text's embeddings.
            head: "template" or "prompt".
            dim_fine: D_f, the size of f_f; None if it is D.
        """
        super().__init__()
        if head not in ("template", "prompt"):
            raise ModelError(f"Expected head 'template' or 'prompt', got {head!r}.")
        if dim < 4 or (head == "prompt" and dim % 8):
            raise ModelError(f"Expected a feature size that 8 attention heads can share, got {dim}.")
        if dim_fine is not None and dim_fine < 1:
            raise ModelError(f"Expected fine features of size 1 or more, got {dim_fine}.")
        self.dim = dim
        self.kind: Head = head
        self.gff = GFF(dim, dim_fine=dim_fine)
        self.head: TemplateHead | PromptHead = TemplateHead() if head == "template" else PromptHead(dim)

    def forward(self, f_c: CoarseEmbeddings, f_f: FineEmbeddings, text: Text) -> Output:
        """Return the scores of features f_c (batch, D) and f_f (batch, D_f), with the text that the head needs."""
        g, z = self.gff(f_c, f_f)
        if isinstance(self.head, TemplateHead):
            if text.templates is None:
                raise ModelError(
                    "Expected template embeddings for the template head, got none: pass Text(templates=...)."
                )
            q, p = self.head(z, text.templates)
            return Output(q, g, z, p=p)
        if text.tokens is None or text.mask is None:
            raise ModelError("Expected token states and mask for the prompt head, got none: pass Text(tokens=, mask=).")
        q, attention = self.head.attend(z, text.tokens, text.mask)
        return Output(q, g, z, attention=attention)


def zero_shot(dim: int, dim_fine: int | None = None) -> MSTCLIPIQA:
    """Return a template model without training: the gate is one half, both maps are the identity.

    Raises:
        ModelError: f_f has another size than f_c.
    """
    model = MSTCLIPIQA(dim, "template", dim_fine)
    model.gff.identity_()
    return model.eval().requires_grad_(False)


def to_native(q: Float[Tensor, "*shape"], low: float, high: float) -> Float[Tensor, "*shape"]:
    """Return scores on the head's scale 1..5 in the units of a rated set whose scale is low..high."""
    return low + (q - 1) / 4 * (high - low)


def to_head(y: Float[Tensor, "*shape"], low: float, high: float) -> Float[Tensor, "*shape"]:
    """Return native scores on the head's scale 1..5; the inverse of ``to_native``."""
    return 1 + (y - low) / (high - low) * 4
