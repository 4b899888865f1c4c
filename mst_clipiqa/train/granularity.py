"""Calibrate how much of an image a model needs: encode at every granularity, fit, and measure what each changes.

Ratings are not used: what counts is the difference from scores at fine granularity.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from mst_clipiqa.data import Record
from mst_clipiqa.encoders.pair import EncoderPair, encode_stream
from mst_clipiqa.errors import DataError
from mst_clipiqa.evaluate import UNFAMILIAR, Reference, make_reference
from mst_clipiqa.features.encoded import Encoded
from mst_clipiqa.features.encoding import FullEncoding, stacked
from mst_clipiqa.features.image_encoder import ImageEncoder
from mst_clipiqa.features.opened import ImagePrompts, Viewed
from mst_clipiqa.model.mstfe import Stream
from mst_clipiqa.scoring.calibration import PARTS, CalibratedOn, Calibration, are_familiar, weights_sha256
from mst_clipiqa.scoring.fine_estimator import deviations, fit_estimator, fit_spread, scaled_scores
from mst_clipiqa.scoring.folders import check_record
from mst_clipiqa.scoring.granular_encoding import fine_views
from mst_clipiqa.scoring.granularity import COARSE, FINE, cheaper_than_fine
from mst_clipiqa.scoring.predictor import Predictor
from mst_clipiqa.scoring.scorer import Scorer
from mst_clipiqa.train.contamination import contamination, seen_by
from mst_clipiqa.train.features import Progress, encode_records

_FEWEST_TO_CALIBRATE = 192
_TIMED = 5  # times that each granularity of some images is timed


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


class _EveryGranularity(FullEncoding):
    """An encoding policy: f_f holds the fine features of all granularities, one after the other."""

    described = "every granularity"

    def __init__(self, encoders: EncoderPair) -> None:
        super().__init__(encoders)
        self.names = [*cheaper_than_fine(encoders.view)[1:], FINE]
        self.timed: Sequence[Viewed] = ()

    def encode(self, viewed: Sequence[Viewed]) -> list[Encoded]:
        """Return f_c, and the fine features of each granularity side by side."""
        self.timed = self.timed or viewed
        features = [encode_stream(self.encoders, *self._seen(name, viewed)).cpu() for name in (COARSE, *self.names)]
        f_c, f_f = features[0], torch.cat(features[1:], dim=1)
        return [Encoded(f_c[i], f_f[i], one.width, one.height) for i, one in enumerate(viewed)]

    def _seen(self, name: str, viewed: Sequence[Viewed]) -> tuple[Stream, Tensor]:
        """Return the stream that a granularity adds, and what it sees."""
        if name == COARSE:
            return "coarse", stacked([one.coarse for one in viewed], self.encoders.device)
        return "fine", fine_views(name, viewed, self.encoders.device)

    def key(self, granularity: str | None) -> str:
        """Return a part of a key that no other features have; nothing is cached."""
        return "-every"

    def cached(self, get: Callable[[str], Encoded | None], prompts: ImagePrompts) -> Encoded | None:
        """Return None: nothing is cached."""
        return None

    def costs(self) -> dict[str, float]:
        """Return the time of each granularity as a share of that of fine, measured while nothing is decoded."""
        coarse, *rest = (self._seconds(*self._seen(name, self.timed)) for name in (COARSE, *self.names))
        whole = coarse + rest[-1]
        return {COARSE: coarse / whole} | {
            name: (coarse + one) / whole for name, one in zip(self.names[:-1], rest, strict=False)
        }

    def _seconds(self, stream: Stream, pixels: Tensor) -> float:
        found = []
        for _ in range(_TIMED):
            start = time.perf_counter()
            encode_stream(self.encoders, stream, pixels).cpu()
            found.append(time.perf_counter() - start)
        return float(np.median(found))


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
        ModelError: the record of what the model was trained on is missing.
    """
    check_record(scorer.model)
    features = encode_every_granularity(scorer, records, progress)
    return fit_calibration(scorer.predictor, features, records, calibrated_on(scorer, records, data, features.costs))


def calibrated_on(scorer: Scorer, records: Sequence[Record], data: str, costs: dict[str, float]) -> CalibratedOn:
    """Return the origin of a calibration; ``costs``: of each granularity, as shares of that of fine."""
    model = scorer.model
    return CalibratedOn(
        weights_sha256(model),
        tuple(scorer.ranges),
        data,
        len(records),
        len({record.group for record in records}),
        contamination(records, seen_by(model)).images or 0.0,
        scorer.encoder.encoders.precision,
        costs,
    )


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
    groups = sorted({record.group for record in records})
    if len(records) < _FEWEST_TO_CALIBRATE or len(groups) < PARTS:
        raise DataError(
            f"Expected at least {_FEWEST_TO_CALIBRATE} images, of {PARTS} prompts or more, "
            f"got {len(records):,} of {len(groups):,}: give more."
        )
    part_of = {group: i % PARTS for i, group in enumerate(groups)}
    part = torch.tensor([part_of[record.group] for record in records])
    f_c, f_f = features.f_c, features.f_f[FINE]
    inputs = {COARSE: f_c} | {name: torch.cat([f_c, f], dim=1) for name, f in features.f_f.items() if name != FINE}
    guesses = {name: _by_others(x, f_f, part) for name, x in inputs.items()}
    spreads = {name: fit_spread(f_f - guess) for name, guess in guesses.items()}
    estimators = {name: fit_estimator(x, f_f, spreads[name]) for name, x in inputs.items()}
    prompts = [record.prompt for record in records]
    true = scaled_scores(predictor, f_c, f_f, prompts)
    e = deviations(spreads, predictor, f_c, guesses[COARSE], prompts)
    measured = {}
    for name, guess in guesses.items():
        error = (scaled_scores(predictor, f_c, guess, prompts) - true).abs()
        measured[name] = torch.stack([e[name], error], dim=2).half().float()  # as a file holds them
    reference, is_familiar = _familiarity(f_c, [record.generator for record in records], part)
    if predictor.model.reference is not None:
        is_familiar &= are_familiar(predictor.model.reference, f_c, guesses[COARSE])
    return Calibration(estimators, measured, is_familiar, part, reference, on)


def _by_others(x: Tensor, f_f: Tensor, part: Tensor) -> Tensor:
    """Return f_f' of each image by an estimator that was fitted on the other parts, float32 (images, D_f)."""
    found = torch.zeros_like(f_f)
    for i in range(PARTS):
        own = part == i
        found[own] = fit_estimator(x[~own], f_f[~own], f_f[:0]).fine(x[own])
    return found


def _familiarity(f_c: Tensor, generators: Sequence[str | None], part: Tensor) -> tuple[Reference, Tensor]:
    """Return the reference of f_c, and whether each image is like those of the other parts, bool (images,)."""

    def made(rows: Tensor) -> Reference:
        named = [name for name, one in zip(generators, rows.tolist(), strict=True) if one]
        return make_reference(f_c[rows].numpy(), np.zeros((len(named), 0)), named)

    distances = np.zeros(len(f_c), np.float32)
    for i in range(PARTS):
        own = part == i
        distances[own.numpy()] = made(~own).distance(f_c[own].numpy(), np.zeros((int(own.sum()), 0)))
    reference = made(torch.ones_like(part, dtype=torch.bool)).calibrated(distances)
    return reference, torch.from_numpy(reference.familiarity(distances) >= UNFAMILIAR)
