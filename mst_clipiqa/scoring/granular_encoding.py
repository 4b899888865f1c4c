"""Encode each image at a granularity that was asked for, or at the one with the lowest cost and risk.

f_c of a batch - risk of each granularity - one granularity per image - the crops that it needs, in one go - f_f or f_f'
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from mst_clipiqa.encoders.pair import encode_batches, encode_stream
from mst_clipiqa.errors import UsageError, percent
from mst_clipiqa.features.encoded import Encoded
from mst_clipiqa.features.image_encoder import BATCH_SIZE, FullEncoding, ImagePrompts, Viewed, stacked
from mst_clipiqa.model.preprocess import Views, coarse_view, views
from mst_clipiqa.scoring.calibration import Calibration
from mst_clipiqa.scoring.fine_estimator import deviations, scaled_scores
from mst_clipiqa.scoring.granularity import CALIBRATION_FILE, COARSE, FINE, Granularity, kept_crops
from mst_clipiqa.scoring.predictor import Predictor
from mst_clipiqa.scoring.risk import COVERAGE

UNLIKE_CALIBRATION = (
    "the image is unlike those of the calibration, so its scores may differ more from those at fine granularity"
)


class GranularEncoding(FullEncoding):
    """An encoding policy: how much of each image is encoded.

    Args:
        predictor: scores the estimates.
        calibration: of the predictor's model.
        asked: the granularity, if it is not fine.
        check: of how many images below fine to measure the true difference; these get fine scores.

    Raises:
        UsageError: the granularity was not calibrated, or does not hold or save time.
    """

    def __init__(self, predictor: Predictor, calibration: Calibration, asked: Granularity, check: int = 0) -> None:
        calibration.require(asked)
        super().__init__(predictor.encoders)
        self.predictor, self.calibration, self.asked = predictor, calibration, asked
        self.granularity = str(asked)
        self.described = f"{asked} by calibration {calibration.digest}"
        self.in_turn = check > 0  # which images are checked does not depend on what is encoded beside them
        # Only some images of a batch need crops; of more images, these fill whole chunks.
        self.batch_size = 2 * BATCH_SIZE if asked.kind == "auto" else BATCH_SIZE
        self._price = calibration.price(asked.tolerance) if asked.kind == "auto" else 0.0
        self._needs_fine = asked.kind != "coarse" or check > 0
        self._check_left = check
        self._counts: Counter[str] = Counter()
        self._errors: list[Tensor] = []  # of the images checked, shares of the scale, float32 (targets,)
        self._lock = threading.Lock()  # of the three above: batches come from several threads

    def views(self, image: Image.Image) -> Views:
        """Return all views, or the coarse one if no other is needed."""
        spec = self.encoders.view
        return views(image, spec) if self._needs_fine else Views(coarse_view(image, spec), None)

    @torch.inference_mode()
    def encode(self, viewed: Sequence[Viewed]) -> list[Encoded]:
        """Return features, each with its granularity."""
        coarse = stacked([one.coarse for one in viewed], self.encoders.device)
        f_c = encode_stream(self.encoders, "coarse", coarse).cpu()
        names = self._choose(f_c, [one.prompts for one in viewed])
        checked = self._to_check(names)
        whole = [FINE if i in checked else name for i, name in enumerate(names)]
        self._count(whole)
        f_f = self._fine(f_c, viewed, whole)
        self._check(f_c, f_f, viewed, {i: names[i] for i in checked})
        notes = self._notes(f_c, viewed)
        return [Encoded(f_c[i], f_f[i], one.width, one.height, notes[i], whole[i]) for i, one in enumerate(viewed)]

    def key(self, granularity: str | None) -> str:
        """Return the part of a cache key that features of a granularity have: those at fine are everyone's."""
        return "" if granularity in (None, FINE) else f"-{granularity}-{self.calibration.digest}"

    def cached(self, get: Callable[[str], Encoded | None], prompts: ImagePrompts) -> Encoded | None:
        """Return an image's features from the cache, or None; f_c of any granularity tells which one is wanted."""
        names = [str(self.asked)] if self.asked.kind != "auto" else [FINE, *self.calibration.estimators]
        known = {name: found for name in names if (found := get(self.key(name))) is not None}
        if not known:
            return None
        (name,) = self._choose(next(iter(known.values())).f_c.unsqueeze(0), [prompts])
        if name not in known:
            return None
        self._count([name])
        return replace(known[name], granularity=name)

    def summary(self) -> str:
        """Return how many images had which granularity, and the results of calibration and checks below fine."""
        images, parts = self._counts.total(), [f"{name} for {count:,}" for name, count in self._counts.most_common()]
        text = f"Granularity: {', '.join(parts)} of {images:,} images. " if images else ""
        text += promise_sentence(self.calibration, self.asked)
        if self._errors:
            errors = torch.stack(self._errors).nan_to_num(0.0)
            some = "1 image, which got its fine scores" if len(errors) == 1 else ""
            some = some or f"{len(errors):,} images, which got their fine scores"
            text += f" Checked {some}: the largest difference was {percent(float(errors.max()), 1)} of the scale"
            if self.asked.kind == "auto":
                good = int((errors <= self.asked.tolerance).all(dim=1).sum())
                text += f", and {good:,} were within {self.asked.tolerance:.3g} of it"
            text += "."
        return text

    def _choose(self, f_c: Tensor, prompts: Sequence[ImagePrompts]) -> list[str]:
        """Return the granularity of each image, good for all its prompts; with auto these must be known."""
        if self.asked.kind != "auto":
            return [str(self.asked)] * len(f_c)
        pairs = [(i, prompt) for i, some in enumerate(prompts) for prompt in some or ()]
        if not pairs:
            return [FINE] * len(f_c)
        rows, asked = torch.tensor([i for i, _ in pairs]), [prompt for _, prompt in pairs]
        estimators = self.calibration.estimators
        spreads = {name: estimator.spread for name, estimator in estimators.items()}
        e = deviations(spreads, self.predictor, f_c[rows], estimators[COARSE].fine(f_c)[rows], asked)
        most = {name: _largest(found, rows, len(f_c)) for name, found in e.items()}
        names = self.calibration.choose(most, self._familiar(f_c), self.asked.tolerance, self._price)
        return [name if some else FINE for name, some in zip(names, prompts, strict=True)]

    def _familiar(self, f_c: Tensor) -> Tensor:
        return self.calibration.familiar(f_c, self.predictor.model.reference)

    def _to_check(self, names: Sequence[str]) -> list[int]:
        """Return which of the images below fine to check."""
        with self._lock:
            checked = [i for i, name in enumerate(names) if name != FINE][: self._check_left]
            self._check_left -= len(checked)
        return checked

    def _count(self, names: Sequence[str]) -> None:
        with self._lock:
            self._counts.update(names)

    def _fine(self, f_c: Tensor, viewed: Sequence[Viewed], names: Sequence[str]) -> Tensor:
        """Return f_f or its estimate for images of the granularities named."""
        groups = {name: [i for i, one in enumerate(names) if one == name] for name in dict.fromkeys(names)}
        seen = {
            name: fine_views(name, [viewed[i] for i in rows], self.encoders.device)
            for name, rows in groups.items()
            if name != COARSE
        }
        encoded = encode_batches(self.encoders, *(("fine", crops) for crops in seen.values())) if seen else []
        features = dict(zip(seen, encoded, strict=True))
        f_f = torch.zeros(len(viewed), self.encoders.dim_fine, dtype=f_c.dtype)
        for name, rows in groups.items():
            f_f[rows] = self._estimated(name, f_c[rows], features[name].cpu() if name in features else None)
        return f_f

    def _estimated(self, name: str, f_c: Tensor, f: Tensor | None) -> Tensor:
        """Return f_f of what the fine stream made of an image, or its estimate from that and f_c."""
        if name == FINE and f is not None:
            return f
        return self.calibration.estimators[name].fine(f_c if f is None else torch.cat([f_c, f], dim=1))

    def _check(self, f_c: Tensor, f_f: Tensor, viewed: Sequence[Viewed], names: dict[int, str]) -> None:
        """Measure by how much the scores of images would differ at the granularities named."""
        if not names:
            return
        estimated = self._fine(f_c[list(names)], [viewed[i] for i in names], list(names.values()))
        pairs = [(at, i, prompt) for at, i in enumerate(names) for prompt in viewed[i].prompts or (None,)]
        rows, prompts = [i for _, i, _ in pairs], [prompt for *_, prompt in pairs]
        places = torch.tensor([at for at, *_ in pairs])
        true = scaled_scores(self.predictor, f_c[rows], f_f[rows], prompts)
        found = scaled_scores(self.predictor, f_c[rows], estimated[places], prompts)
        with self._lock:
            self._errors += _largest((found - true).abs(), places, len(names)).unbind(0)

    def _notes(self, f_c: Tensor, viewed: Sequence[Viewed]) -> list[str]:
        """Return the caution about each image's scores; with auto, an unfamiliar image has fine scores."""
        notes = [one.note for one in viewed]
        if self.asked.kind == "auto":
            return notes
        familiar = self._familiar(f_c).tolist()
        return [
            note if fits else "; ".join(filter(None, (note, UNLIKE_CALIBRATION)))
            for note, fits in zip(notes, familiar, strict=True)
        ]


def fine_views(name: str, viewed: Sequence[Viewed], device: torch.device) -> Tensor:
    """Return the fine stream's views of images at a granularity above coarse, on a device."""
    pixels = [one.coarse if one.fine is None else one.fine for one in viewed]
    if name != FINE:
        pixels = [crops[kept_crops(name, len(crops))] for crops in pixels]
    return stacked(pixels, device)


def promise_sentence(calibration: Calibration, asked: Granularity) -> str:
    """Return the promise of the calibration for a granularity, in one sentence."""
    if asked.kind == "auto":
        found = calibration.promise(asked.tolerance)
        return (
            f"In calibration, {percent(found.within, 1)} of {found.below:,} images below fine had no score that "
            f"changed by more than {asked.tolerance:g} of its scale."
        )
    sizes = [f"{target} {percent(size, 1)}" for target, size in calibration.differences(str(asked)).items()]
    most = f"{', '.join(sizes)} of the scale"
    return f"In calibration, {percent(COVERAGE)} of scores differed from those at fine granularity by at most: {most}."


def calibration_path(folder: Path | None) -> Path:
    """Return the path of a model folder's calibration; UsageError for zero-shot, which has no folder."""
    if folder is None:
        raise UsageError("Expected a trained model for --granularity, got zero-shot: name a model folder, or use fine.")
    return folder / CALIBRATION_FILE


def _largest(e: Tensor, rows: Tensor, images: int) -> Tensor:
    """Return the largest e of each image over its prompts, float32 (images, targets); NaN if none is scored."""
    index = rows.unsqueeze(1).expand_as(e)
    known = torch.where(e.isnan(), -torch.inf, e)
    most = torch.full((images, e.shape[1]), -torch.inf, dtype=e.dtype).scatter_reduce(0, index, known, "amax")
    return torch.where(most == -torch.inf, torch.nan, most)
