"""Calibrate how much of an image a model needs: encode at every granularity, fit, set limits, check.

Ratings are not used: what counts is the difference from scores at fine granularity.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from mst_clipiqa.data import Record
from mst_clipiqa.encoders.pair import EncoderPair, encode_stream
from mst_clipiqa.errors import DataError
from mst_clipiqa.evaluate import make_reference
from mst_clipiqa.features.cache import Encoded
from mst_clipiqa.features.image_encoder import ImageEncoder, Viewed, stacked
from mst_clipiqa.model.preprocess import Views, views
from mst_clipiqa.scoring.calibration import CalibratedOn, Calibration, owner_of
from mst_clipiqa.scoring.fine_estimator import deviations, fit_estimator, values
from mst_clipiqa.scoring.granularity import COARSE, FINE, cheaper_than_fine, kept_crops
from mst_clipiqa.scoring.predictor import Predictor
from mst_clipiqa.scoring.scorer import Scorer
from mst_clipiqa.train.contamination import contamination, seen_by
from mst_clipiqa.train.features import Progress, encode_records

_FEWEST_PER_THIRD = 64  # images in each third of the prompts


@dataclass(frozen=True)
class GranularFeatures:
    """Images at every granularity.

    Attributes:
        f_c: float32 (images, D).
        f_f: of each granularity but coarse, float32 (images, D_f).
        costs: of each granularity, the time of the encoders as a share of that of fine.
    """

    f_c: Tensor
    f_f: dict[str, Tensor]
    costs: dict[str, float]


class _EveryGranularity:
    """An encoding policy: f_f holds the fine features of all granularities, one after the other."""

    described = "every granularity"

    def __init__(self, encoders: EncoderPair) -> None:
        self.encoders = encoders
        self.names = [*cheaper_than_fine(encoders.view)[1:], FINE]
        self.seconds: list[list[float]] = []  # of each batch: the coarse stream, then each of the names

    def views(self, image: Image.Image) -> Views:
        """Return all views."""
        return views(image, self.encoders.view)

    def encode(self, viewed: Sequence[Viewed]) -> list[Encoded]:
        """Return f_c, and the fine features of each granularity side by side."""
        coarse = stacked([one.coarse for one in viewed], self.encoders.device)
        fine = [one.coarse if one.fine is None else one.fine for one in viewed]
        seconds, features = [], []
        for name in (COARSE, *self.names):
            seen = fine if name == FINE else [] if name == COARSE else [c[kept_crops(name, len(c))] for c in fine]
            pixels = stacked(seen, self.encoders.device) if seen else coarse
            start = time.perf_counter()
            features.append(encode_stream(self.encoders, "coarse" if name == COARSE else "fine", pixels).cpu())
            seconds.append(time.perf_counter() - start)
        self.seconds.append(seconds)
        f_c, f_f = features[0], torch.cat(features[1:], dim=1)
        return [Encoded(f_c[i], f_f[i], one.width, one.height) for i, one in enumerate(viewed)]

    def key(self, granularity: str | None) -> str:
        """Return a part of a key that no other features have; nothing is cached."""
        return "-every"

    def cached(self, get: Callable[[str], Encoded | None], prompts: tuple[str | None, ...] | None) -> Encoded | None:
        """Return None: nothing is cached."""
        return None

    def summary(self) -> str:
        """Return nothing."""
        return ""

    def costs(self) -> dict[str, float]:
        """Return the time of each granularity as a share of that of fine; the first batch only warms up."""
        coarse, *rest = np.array(self.seconds[1:] or self.seconds).sum(axis=0)
        whole = coarse + rest[-1]
        return {COARSE: float(coarse / whole)} | {
            name: float((coarse + one) / whole) for name, one in zip(self.names[:-1], rest, strict=False)
        }


def encode_every_granularity(
    scorer: Scorer, records: Sequence[Record], progress: Progress | None = None
) -> GranularFeatures:
    """Return the features of images at every granularity; DataError if images cannot be read."""
    encoder, policy = scorer.encoder, _EveryGranularity(scorer.encoder.encoders)
    whole = ImageEncoder(
        encoder.encoders,
        batch_size=encoder.batch_size,
        workers=encoder.workers,
        policy=policy,
        opening=encoder.opening,
    )
    table = encode_records(whole, records, prompts=False, progress=progress)
    parts = table.f_f.split(encoder.encoders.dim_fine, dim=1)
    return GranularFeatures(table.f_c, dict(zip(policy.names, parts, strict=True)), policy.costs())


def calibrate_granularity(
    scorer: Scorer, records: Sequence[Record], data: str = "", progress: Progress | None = None
) -> Calibration:
    """Return the calibration of a scorer's model on some images.

    Args:
        scorer: at fine granularity.
        records: images, with the prompts they will be scored against; those of one prompt stay together.
        data: the name of the set.
        progress: called with the number of images encoded since the last call.

    Raises:
        DataError: an image cannot be read, or there are too few of them.
    """
    features = encode_every_granularity(scorer, records, progress)
    pair, model = scorer.encoder.encoders, scorer.model
    seen = contamination(records, seen_by(model, model.config.encoders)).images or 0.0
    on = CalibratedOn(
        owner_of(model),
        tuple(scorer.ranges),
        data,
        len(records),
        len({record.group for record in records}),
        seen,
        pair.precision,
        features.costs,
    )
    return fit_calibration(scorer.predictor, features, records, on)


def fit_calibration(
    predictor: Predictor, features: GranularFeatures, records: Sequence[Record], on: CalibratedOn
) -> Calibration:
    """Return a calibration from features.

    Args:
        predictor: of the trained model.
        features: of the records.
        records: their prompts are scored, their groups part them, and their generators tell what is familiar.
        on: what the calibration comes from.

    Raises:
        DataError: there are too few images or prompts.
    """
    part_of = {group: i % 3 for i, group in enumerate(sorted({record.group for record in records}))}
    part = torch.tensor([part_of[record.group] for record in records])
    fit, held, last = (part == i for i in range(3))
    if min(int(some.sum()) for some in (fit, held, last)) < _FEWEST_PER_THIRD:
        least = 3 * _FEWEST_PER_THIRD
        raise DataError(f"Expected at least {least} images of three prompts or more, got {len(records)}.")
    f_c = features.f_c
    inputs = {COARSE: f_c} | {name: torch.cat([f_c, f_f], dim=1) for name, f_f in features.f_f.items() if name != FINE}
    f_f = features.f_f[FINE]
    estimators = {name: fit_estimator(x, f_f, fit, held) for name, x in inputs.items()}
    prompts = [record.prompt for record in records]
    true = values(predictor, f_c, f_f, prompts)
    e = deviations(estimators, predictor, f_c, prompts)
    rows = {}
    for name, estimator in estimators.items():
        error = (values(predictor, f_c, estimator.fine(inputs[name]), prompts) - true).abs()
        rows[name] = torch.stack([e[name], error], dim=2).half().float()  # as a file holds them
    generators = [record.generator for record, fits in zip(records, fit.tolist(), strict=True) if fits]
    reference = make_reference(f_c[fit].numpy(), np.zeros((int(fit.sum()), 0)), generators)
    reference = reference.calibrated(reference.distance(f_c[held].numpy(), np.zeros((int(held.sum()), 0))))
    found = Calibration(
        estimators,
        {name: one[held] for name, one in rows.items()},
        {name: one[last] for name, one in rows.items()},
        torch.ones(int(last.sum()), dtype=torch.bool),
        reference,
        on,
    )
    return replace(found, check_familiar=found.familiar(f_c[last], predictor.model.reference))
