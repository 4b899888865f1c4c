"""Answers to what a request may ask beside the scores: its negative prompt, reference image and control map.

    negative prompt   - the prompt head ......... - negative_match
    reference image   - the two image encoders .. - reference_coarse, reference_fine
    control map       - edges of the image ...... - edge_agreement

No score depends on any of them.
"""

from __future__ import annotations

import dataclasses
import os
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from mst_clipiqa.errors import ImageError, UsageError, as_reason, as_sentence, brief
from mst_clipiqa.features.encoded import Encoded
from mst_clipiqa.features.image_encoder import ImageEncoder
from mst_clipiqa.features.opened import Failed
from mst_clipiqa.images.decode import open_image
from mst_clipiqa.images.options import OpenOptions
from mst_clipiqa.scoring.predictor import NOT_TEXT, Predictor
from mst_clipiqa.scoring.score import Score, ScoreRequest
from mst_clipiqa.tables.stamps import stamp_of

UNKNOWN_NEGATIVE = (
    "the negative prompt's words lie outside what the text encoder was trained on, so negative_match is not given"
)
NO_EDGES = "the image or its control map has no edges"

ANSWERS = (("negative_match",), ("reference_coarse", "reference_fine"), ("edge_agreement",))
"""Names of the answers to a negative prompt, a reference and a control map."""

_REFERENCES_KEPT = 64  # reference images whose features are kept


@dataclass(frozen=True)
class EdgeAgreement:
    """How well an image's edges agree with a control map; given in place of a control map, it is used as it is.

    Attributes:
        value: -1 to 1, None if there is no answer.
        note: why not; empty otherwise.
    """

    value: float | None
    note: str = ""


def compare_edges(image: Any, control: Any, opening: OpenOptions) -> EdgeAgreement:
    """Return how well the edges of an image agree with a control map; both as ``open_image`` takes them."""
    from mst_clipiqa.scoring.edges import edge_agreement  # which needs scipy

    try:
        wanted = open_image(control, opening).image
    except ImageError as error:
        return EdgeAgreement(None, f"the control map cannot be read: {as_reason(error)}")
    try:
        own = open_image(image, opening).image
    except ImageError as error:  # such as an open file, which has been read to its end
        return EdgeAgreement(None, f"the image cannot be read again for its edges: {as_reason(error)}")
    value = edge_agreement(own, wanted)
    return EdgeAgreement(value, "" if value is not None else NO_EDGES)


def completed(score: Score, encoded: Encoded) -> Score:
    """Return a prediction with what only the image knows: its size, and a note on its features."""
    notes = (score.reason, "" if score.error else encoded.note)
    reason = "; ".join(note for note in notes if note)
    width, height, granularity = encoded.width, encoded.height, encoded.granularity
    return dataclasses.replace(score, reason=reason, width=width, height=height, granularity=granularity)


def answers_of(negative: object, reference: object, control: object) -> list[str]:
    """Return the names of the columns that answer these fields of a request; None asks nothing."""
    fields = zip((negative, reference, control), ANSWERS, strict=True)
    return [name for field, names in fields if field is not None for name in names]


class ControlAnswers:
    """Answers what requests ask beside the scores.

    Args:
        encoder: of the images, and of reference images.
        predictor: with the prompt head that reads negative prompts.
    """

    def __init__(self, encoder: ImageEncoder, predictor: Predictor) -> None:
        self.encoder, self.predictor = encoder, predictor
        self._known: dict[tuple[str, str | None], Encoded | Failed] = {}  # reference images, by name and state

    def check(self, request: ScoreRequest[Any]) -> None:
        """Raise a UsageError if this model cannot answer a request, whatever its image."""
        if request.negative is not None and "correspondence" not in self.predictor.ranges:
            raise UsageError(
                "Expected a model that scores correspondence for a negative prompt, got "
                f"{self.predictor.config.name}: choose another model, or leave the negative prompt out."
            )
        if (request.negative is not None or request.reference is not None) and (
            granularity := self.encoder.policy.granularity
        ):
            what = "a negative prompt" if request.negative is not None else "a reference image"
            raise UsageError(f"Expected granularity fine beside {what}, got {granularity}: drop one.")

    def open_controls(self, negative: str | None = None, reference: Any = None, control: Any = None) -> dict[str, Any]:
        """Return the controls of a call as fields of the request for each image, with files read once for them all.

        Raises:
            UsageError: this model cannot answer it, or the negative prompt is not text.
            ImageError: the reference image or the control map cannot be read.
        """
        if negative is not None and not isinstance(negative, str):
            raise UsageError(f"Expected the negative prompt to be text, got {brief(negative)}.")
        fields = {"negative": negative, "reference": reference, "control": control}
        self.check(ScoreRequest(None, **fields))
        if reference is not None:
            fields["reference"] = self.encoder.encode([reference])[0]
        if control is not None:
            fields["control"] = self._map(control)
        return fields

    @torch.inference_mode()
    def complete(self, score: Score, request: ScoreRequest[Any], encoded: object) -> Score:
        """Return a score with the answers to its request; why one is missing is added to ``reason``."""
        controls = (request.negative, request.reference, request.control)
        if score.error or not isinstance(encoded, Encoded) or controls == (None, None, None):
            return score
        match, match_note = self._match(request.negative, encoded)
        coarse, fine, reference_note = self._resemblance(request.reference, encoded)
        edges = self._agreement(request)
        reason = "; ".join(filter(None, (score.reason, match_note, reference_note, edges.note)))
        alike = {"reference_coarse": coarse, "reference_fine": fine}
        answers: dict[str, Any] = {"negative_match": match, **alike, "edge_agreement": edges.value}
        return dataclasses.replace(score, reason=reason, **answers)

    def _match(self, negative: object, encoded: Encoded) -> tuple[float | None, str]:
        if negative is None or (isinstance(negative, str) and not negative.strip()):
            return None, ""
        if not isinstance(negative, str):
            return None, NOT_TEXT.format(type(negative).__name__).replace("the prompt", "the negative prompt")
        match = self.predictor.predict(encoded.f_c[None], encoded.f_f[None], [negative])[0].correspondence
        return match, "" if match is not None else UNKNOWN_NEGATIVE

    def _resemblance(self, reference: object, encoded: Encoded) -> tuple[float | None, float | None, str]:
        if reference is None:
            return None, None, ""
        other = self.reference(reference)
        if isinstance(other, Failed):
            return None, None, f"the reference cannot be read: {other.reason}"
        pairs = ((encoded.f_c, other.f_c), (encoded.f_f, other.f_f))
        coarse, fine = (_cosine(a, b) for a, b in pairs)
        return coarse, fine, ""

    def reference(self, image: Any) -> Encoded | Failed:
        """Return the features of a reference image, or why it cannot be read."""
        if isinstance(image, Encoded | Failed):
            return image
        if not isinstance(image, str | os.PathLike):
            return self._encoded(image)
        key = str(image), stamp_of(str(image))
        found = self._known.get(key)  # once, because another thread may clear them
        if found is None:
            found = self._encoded(image)
            if len(self._known) >= _REFERENCES_KEPT:
                self._known.clear()
            self._known[key] = found
        return found

    def _encoded(self, image: Any) -> Encoded | Failed:
        (one,) = self.encoder.encode_opened([self.encoder.open(image)])
        return one if isinstance(one, Encoded | Failed) else Failed("expected an image, got its score")

    def _map(self, control: Any) -> Image.Image:
        """Return a control map, opened; the message of an ImageError names its file."""
        try:
            return open_image(control, self.encoder.opening).image
        except ImageError as error:
            raise ImageError(as_sentence(str(error), control)) from error

    def _agreement(self, request: ScoreRequest[Any]) -> EdgeAgreement:
        if request.control is None or isinstance(request.control, EdgeAgreement):
            return request.control or EdgeAgreement(None)
        return compare_edges(request.image, request.control, self.encoder.opening)


def _cosine(a: Tensor, b: Tensor) -> float:
    """Return the cosine of two features, -1..1: rounded to float32, so that a copy of an image has exactly 1."""
    return float(F.cosine_similarity(a.double(), b.double(), dim=0).float().clamp(-1, 1))
