"""Shapes of the tensors in ``model`` and ``encoders``, as annotations; they are checked while tests run.

D is the size of an embedding (D_c, D_f if the streams' may differ), L the number of tokens, S and C the sides of views
and of native crops in pixels.
"""

from __future__ import annotations

from typing import TypeAlias

from jaxtyping import Bool, Float, UInt8
from torch import Tensor

Embeddings: TypeAlias = Float[Tensor, "batch D"]
CoarseEmbeddings: TypeAlias = Float[Tensor, "batch D_c"]
FineEmbeddings: TypeAlias = Float[Tensor, "batch D_f"]
Templates: TypeAlias = Float[Tensor, "5 D"]
TokenStates: TypeAlias = Float[Tensor, "batch L D"]
TokenMask: TypeAlias = Bool[Tensor, "batch L"]
TokenWeights: TypeAlias = Float[Tensor, "batch L"]
LevelWeights: TypeAlias = Float[Tensor, "batch 5"]
Scores: TypeAlias = Float[Tensor, " batch"]
Pixels: TypeAlias = Float[Tensor, "batch 3 S S"]
ViewBatch: TypeAlias = UInt8[Tensor, "batch 3 S S"]
CropBatch: TypeAlias = UInt8[Tensor, "batch crops 3 C C"]
