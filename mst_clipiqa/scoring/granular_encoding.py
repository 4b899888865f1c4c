"""Encode each image at a granularity that was asked for, or at the one with the lowest cost and risk.

f_c of a batch - risk of each granularity - one granularity per image - the crops that it needs, in one go - f_f or f_f'
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from PIL import Image
from torch import Tensor

from mst_clipiqa.encoders.pair import encode_batches, encode_stream
from mst_clipiqa.features.encoded import Encoded
from mst_clipiqa.features.encoding import BATCH_SIZE, FullEncoding, stacked
from mst_clipiqa.features.opened import ImagePrompts, Viewed
from mst_clipiqa.model.preprocess import Views, coarse_view, views
from mst_clipiqa.scoring.calibration import Calibration
from mst_clipiqa.scoring.fine_estimator import scaled_scores
from mst_clipiqa.scoring.granularity import COARSE, FINE, Granularity, kept_crops
from mst_clipiqa.scoring.granularity_choice import GranularityChoice, largest_by_image
from mst_clipiqa.scoring.granularity_tally import GranularityTally
from mst_clipiqa.scoring.predictor import Predictor


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
        self.choice = GranularityChoice(predictor, calibration, asked)
        self.tally = GranularityTally(calibration, asked, check)
        self.granularity = str(asked)
        self.described = f"{asked} by calibration {calibration.digest}"
        self.in_turn = check > 0  # which images are checked does not depend on what is encoded beside them
        # Only some images of a batch need crops; of more images, these fill whole chunks.
        self.batch_size = 2 * BATCH_SIZE if asked.kind == "auto" else BATCH_SIZE
        self._needs_fine = asked.kind != "coarse" or check > 0

    def views(self, image: Image.Image) -> Views:
        """Return all views, or the coarse one if no other is needed."""
        spec = self.encoders.view
        return views(image, spec) if self._needs_fine else Views(coarse_view(image, spec), None)

    @torch.inference_mode()
    def encode(self, viewed: Sequence[Viewed]) -> list[Encoded]:
        """Return features, each with its granularity."""
        coarse = stacked([one.coarse for one in viewed], self.encoders.device)
        f_c = encode_stream(self.encoders, "coarse", coarse).cpu()
        names = self.choice.names(f_c, [one.prompts for one in viewed])
        checked = self.tally.take_checks(names)
        whole = [FINE if i in checked else name for i, name in enumerate(names)]
        self.tally.count(whole)
        f_f = self._fine(f_c, viewed, whole)
        self._check(f_c, f_f, viewed, {i: names[i] for i in checked})
        notes = self.choice.notes(f_c, viewed)
        rows = zip(f_c.unbind(), f_f.unbind(), viewed, notes, whole, strict=True)
        return [Encoded(coarse, fine, one.width, one.height, note, name) for coarse, fine, one, note, name in rows]

    def key(self, granularity: str | None) -> str:
        """Return the part of a cache key that features of a granularity have: those at fine are everyone's."""
        return "" if granularity in (None, FINE) else f"-{granularity}-{self.calibration.digest}"

    def cached(self, get: Callable[[str], Encoded | None], prompts: ImagePrompts) -> Encoded | None:
        """Return an image's features from the cache, or None; f_c of any granularity tells which one is wanted."""
        names = [str(self.asked)] if self.asked.kind != "auto" else [FINE, *self.calibration.estimators]
        known = {name: found for name in names if (found := get(self.key(name))) is not None}
        if not known:
            return None
        (name,) = self.choice.names(next(iter(known.values())).f_c.unsqueeze(0), [prompts])
        if name not in known:
            return None
        self.tally.count([name])
        return replace(known[name], granularity=name)

    def summary(self) -> str:
        """Return how many images had which granularity, and the results of calibration and checks below fine."""
        return self.tally.summary()

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
        self.tally.add_errors(largest_by_image((found - true).abs(), places, len(names)))


def fine_views(name: str, viewed: Sequence[Viewed], device: torch.device) -> Tensor:
    """Return the fine stream's views of images at a granularity above coarse, on a device."""
    pixels = [one.coarse if one.fine is None else one.fine for one in viewed]
    if name != FINE:
        pixels = [crops[kept_crops(name, len(crops))] for crops in pixels]
    return stacked(pixels, device)
