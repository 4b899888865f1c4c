"""Coarse first: run the fine stream only if it could change a score by more than a tolerance.

An image whose bound (``fine_estimator.py``) is within the tolerance for every target and prompt keeps the score of its
estimated fine feature; all others are encoded in full.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence

import torch
from PIL import Image
from torch import Tensor

from mst_clipiqa.encoders.pair import encode_stream
from mst_clipiqa.errors import UsageError
from mst_clipiqa.features.cache import Encoded
from mst_clipiqa.features.image_encoder import Viewed, stacked
from mst_clipiqa.model.mstfe import Stream
from mst_clipiqa.model.preprocess import fine_views
from mst_clipiqa.scoring.fine_estimator import FineEstimator, values
from mst_clipiqa.scoring.predictor import Predictor

ESTIMATED = "estimated from the coarse stream alone"
_HELD_PIXELS = 2**20  # of a larger image, the views are kept in memory instead of the image


class AdaptiveEncoding:
    """An encoding policy: the coarse stream for every image, the fine one if the bound does not spare it.

    Args:
        predictor: scores the estimates.
        estimator: calibrated for the predictor's model.
        tolerance: largest accepted change of a score, in the units of each target.
        check: number of skipped images for which to measure the true error.

    Raises:
        UsageError: the tolerance is not above 0, or ``check`` is negative.
    """

    def __init__(self, predictor: Predictor, estimator: FineEstimator, tolerance: float, check: int = 0) -> None:
        if not tolerance > 0 or check < 0:
            raise UsageError(f"Expected a tolerance above 0 and a check of 0 or more, got {tolerance} and {check}.")
        self.predictor, self.estimator, self.tolerance = predictor, estimator, tolerance
        self.encoders = predictor.encoders
        self._check_left = check
        self._images = self._skipped = 0
        self._errors: list[float] = []  # of the images checked, in native units
        self._lock = threading.Lock()  # of the four above: batches come from several threads

    def is_late(self, image: Image.Image) -> bool:
        """Return whether an image is kept until its fine views are needed; of a large one, they take less memory."""
        return image.width * image.height <= _HELD_PIXELS

    @torch.inference_mode()
    def encode(self, viewed: Sequence[Viewed]) -> list[Encoded]:
        """Return features, with a note on those whose f_f is an estimate."""
        f_c = self._encoded("coarse", [one.coarse for one in viewed])
        guess = self.estimator.fine(f_c)
        spared = self._spared(f_c, viewed)
        checked = self._counted(spared, len(viewed))
        full = [i for i in range(len(viewed)) if i not in spared or i in checked]
        f_f = guess.clone()
        if full:
            f_f[full] = self._encoded("fine", [self._fine(viewed[i]) for i in full])
        self._check(f_c, f_f, guess, [(i, prompt) for i in checked for prompt in viewed[i].prompts or ()])
        note = self._note()
        notes = ["; ".join(filter(None, (one.note, "" if i in full else note))) for i, one in enumerate(viewed)]
        return [Encoded(f_c[i], f_f[i], one.width, one.height, notes[i]) for i, one in enumerate(viewed)]

    def summary(self) -> str:
        """Return how many images were spared, and how far off the checked ones were."""
        share = self._skipped / max(1, self._images)
        text = f"The fine stream was skipped for {self._skipped:,} of {self._images:,} images ({share:.0%})."
        if self._errors:
            good = sum(error <= self.tolerance for error in self._errors)
            text += (
                f" Checked {len(self._errors):,} of them: {good:,} within {self.tolerance:g}, "
                f"largest difference {max(self._errors):.4f}."
            )
        return text

    def _note(self) -> str:
        """Return what an estimate's row says: what was measured on skipped images in calibration, if any were."""
        count, share = self.estimator.measured(self.tolerance)
        held = f"of {count:,} images that calibration skipped, {share:.0%} were within {self.tolerance:g}"
        return f"{ESTIMATED}; {held}" if count else ESTIMATED

    def _spared(self, f_c: Tensor, viewed: Sequence[Viewed]) -> list[int]:
        """Return the images whose bounds are within the tolerance for all their prompts; these must be known."""
        pairs = [(i, prompt) for i, one in enumerate(viewed) for prompt in one.prompts or ()]
        if not pairs:
            return []
        rows = [i for i, _ in pairs]
        bounds = self.estimator.bounds(self.predictor, f_c[rows], [prompt for _, prompt in pairs])
        within = (torch.stack(list(bounds.values())) <= self.tolerance).all(dim=0).tolist()
        needed = {i for i, good in zip(rows, within, strict=True) if not good}
        return [i for i, one in enumerate(viewed) if one.prompts and i not in needed]

    def _counted(self, spared: list[int], images: int) -> list[int]:
        """Count a batch; return which of the spared images to check."""
        with self._lock:
            self._images += images
            self._skipped += len(spared)
            checked = spared[: self._check_left]
            self._check_left -= len(checked)
        return checked

    def _check(self, f_c: Tensor, f_f: Tensor, guess: Tensor, pairs: Sequence[tuple[int, str | None]]) -> None:
        if not pairs:
            return
        rows, prompts = [i for i, _ in pairs], [prompt for _, prompt in pairs]
        true = values(self.predictor, f_c[rows], f_f[rows], prompts)
        estimated = values(self.predictor, f_c[rows], guess[rows], prompts)
        differences = torch.stack([(true[name] - estimated[name]).abs().nan_to_num(0.0) for name in true])
        with self._lock:
            self._errors += differences.amax(dim=0).tolist()

    def _fine(self, one: Viewed) -> Tensor:
        """Return what the fine stream sees: native crops, or the coarse view."""
        fine = one.fine if one.image is None else fine_views(one.image, self.encoders.view)
        return one.coarse if fine is None else fine

    def _encoded(self, stream: Stream, views: Sequence[Tensor]) -> Tensor:
        return encode_stream(self.encoders, stream, stacked(views, self.encoders.device)).cpu()
