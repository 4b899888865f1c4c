"""One target of a model as a module, from pixels to scores, with gradients to every pixel.

images - pixel_views - pair.embed - GFF and head - native units

The encoders, the trained part and the prompt's tokens are the scorer's own. Only the way there differs: nothing is
rounded to bytes, the encoders are the plain ones, not the fused ones, and a score is not cut off at the ends of the
scale, where a cut has no gradient.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mst_clipiqa.encoders.precision import own_settings
from mst_clipiqa.encoders.threads import run_in_new_thread_after_fork
from mst_clipiqa.errors import ImageError, PromptError, UsageError, as_sentence
from mst_clipiqa.features.encoded import EncodedPrompt
from mst_clipiqa.features.prompt_encoder import padded_states
from mst_clipiqa.images.modes import check_dense, check_ends
from mst_clipiqa.inputs.prompt_syntax import without_syntax
from mst_clipiqa.model.mst_clipiqa import MSTCLIPIQA, Text, to_native, zero_shot
from mst_clipiqa.model.mstfe import Stream
from mst_clipiqa.model.pixel_views import coarse_pixels, fine_pixels, normalised_pixels
from mst_clipiqa.scoring.predictor import EMPTY_PROMPT, MISSING_PROMPT, NOT_TEXT, UNKNOWN_WORDS
from mst_clipiqa.scoring.scorer import Scorer


class DifferentiableTarget(nn.Module):
    """Images (N, 3, H, W) in [0, 1] to scores (N,) of one target.

    Args:
        scorer: with encoders that torch computes in fp32; they are shared, not copied.
        target: its name.

    Raises:
        UsageError: the model has no such target, or its encoders have no gradients.
    """

    templates: Tensor

    def __init__(self, scorer: Scorer, target: str) -> None:
        super().__init__()
        self.encoders: Any = scorer.encoder.encoders
        device = self.encoders.device
        if not hasattr(self.encoders, "embed"):
            raise UsageError("Expected encoders that torch computes, got exported ones: load them without a backend.")
        self.target = target
        self.kind = scorer.model.config.targets[target].head
        self.low, self.high = scorer.ranges[target]
        self.prompts = scorer.predictor.prompts
        # Clones outside the caller's inference mode, as tensors made for inference only cannot be part of a graph.
        with torch.inference_mode(False), own_settings(device):
            self.part, templates = run_in_new_thread_after_fork(lambda: self._copied(scorer, device))
        self.register_buffer("templates", templates, persistent=False)

    def _copied(self, scorer: Scorer, device: torch.device) -> tuple[MSTCLIPIQA, Tensor]:
        """Return the trained part of the target and the templates, on a device."""
        part = scorer.model.parts.get(self.target) or zero_shot(self.encoders.dim, self.encoders.dim_fine)
        return copy.deepcopy(part).requires_grad_(False).to(device), scorer.predictor.templates.clone().to(device)

    def forward(self, images: Tensor, prompts: Sequence[str | None]) -> Tensor:
        """Return scores in native units, float (N,).

        Args:
            images: float of any precision (N, 3, H, W) in [0, 1], on the encoders' device.
            prompts: one per image; read by heads with a prompt only.

        Raises:
            ImageError: the images are not such a tensor, or hold NaN or values outside [0, 1].
            PromptError: a prompt is not text, or the head needs one, and it is missing, empty or outside the
                vocabulary.
        """
        for prompt in prompts:
            if prompt is not None and not isinstance(prompt, str):
                raise PromptError(as_sentence(NOT_TEXT.format(type(prompt).__name__)))
        images = _checked(images, self.templates.dtype)
        if not len(images):
            return images.flatten(1).sum(dim=1)
        with own_settings(images.device):
            return self._scores(images, prompts)

    def _scores(self, images: Tensor, prompts: Sequence[str | None]) -> Tensor:
        f_c, f_f = (feature.to(self.templates.dtype) for feature in self.features(images))
        if self.kind == "template":
            return self._native(self.part(f_c, f_f, Text(templates=self.templates)).q)
        read = self._read(prompts)
        if self.kind == "similarity":
            z = self.part.gff(f_c, f_f)[1]
            embeddings = torch.stack([cast(Tensor, prompt.embedding) for prompt in read]).to(z)
            cosine: Tensor = (F.normalize(z, dim=-1) * F.normalize(embeddings, dim=-1)).sum(dim=1)
            return cosine
        tokens, mask = padded_states(read)
        return self._native(self.part(f_c, f_f, Text(tokens=tokens.to(f_c), mask=mask.to(f_c.device))).q)

    def features(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return f_c (N, D) and f_f (N, D_f) of images (N, 3, H, W) in [0, 1]."""
        spec = self.encoders.view
        coarse = coarse_pixels(images, spec).unsqueeze(1)
        fine = fine_pixels(images, spec)
        views: tuple[tuple[Stream, Tensor], ...]
        views = (("coarse", coarse), ("fine", coarse if fine is None else fine))
        f_c, f_f = (self.encoders.embed(stream, normalised_pixels(view, spec.of(stream))) for stream, view in views)
        return f_c, f_f

    def _native(self, q: Tensor) -> Tensor:
        return to_native(q, self.low, self.high)

    def _read(self, prompts: Sequence[str | None]) -> list[EncodedPrompt]:
        """Return the encoded prompts; PromptError for the first that cannot be scored."""
        words = []
        for prompt in prompts:
            if not isinstance(prompt, str):
                raise PromptError(as_sentence(MISSING_PROMPT.format(self.target)))
            words.append(without_syntax(prompt)[0])
            if not words[-1].strip():
                raise PromptError(as_sentence(EMPTY_PROMPT))
        read = self.prompts.encode(words)
        if not all(one.in_vocabulary for one in read):
            raise PromptError(as_sentence(UNKNOWN_WORDS))
        return read


def _checked(images: Tensor, dtype: torch.dtype) -> Tensor:
    """Return images in the precision of the computation; ImageError unless they are floats (N, 3, H, W) in [0, 1]."""
    check_dense(images)
    if images.ndim != 4 or images.shape[1] != 3 or 0 in images.shape[2:] or not images.is_floating_point():
        shape = tuple(images.shape)
        raise ImageError(f"Expected float images (N, 3, H, W) in [0, 1], got {images.dtype} {shape}: convert them.")
    images = images.to(dtype)
    if len(images):
        check_ends(*(end.item() for end in torch.aminmax(images.detach())))
    return images
