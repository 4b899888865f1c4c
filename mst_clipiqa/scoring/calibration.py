"""What a model was calibrated to: how far scores below fine are from those at fine granularity, and how risky they are.

The prompts of the calibration images are in six parts. What is measured of an image, e and |s' - s|, comes from
estimators that were fitted on the other parts; those that score new images are fitted on all. What a tolerance promises
is measured in the same way: on each part, at the price of risk (``risk.py``) that the others set.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from mst_clipiqa.errors import UsageError, percent
from mst_clipiqa.evaluate import UNFAMILIAR, Reference
from mst_clipiqa.model_folder import TrainedModel
from mst_clipiqa.scoring.fine_estimator import FineEstimator
from mst_clipiqa.scoring.granularity import COARSE, FINE, Granularity
from mst_clipiqa.scoring.risk import COVERAGE, cheapest, lowest_price, outcomes, risks

LEAST_SAVED = 0.05
"""Share of the encoders' time that a tolerance must save."""
_FEWEST_BELOW = 20  # images below fine from which a share can be estimated
PARTS = 6
"""Parts of the prompts."""


@dataclass(frozen=True)
class CalibratedOn:
    """What a calibration comes from.

    Attributes:
        model: ``weights_sha256`` the model that it belongs to.
        targets: their names, in the order of columns.
        data: name of the rated set.
        images, prompts: how many.
        seen: share of the images that the model or its encoders had been trained on.
        precision: what the encoders computed in.
        costs: of each granularity, the time of the encoders as a share of that of fine.
    """

    model: str
    targets: tuple[str, ...]
    data: str = ""
    images: int = 0
    prompts: int = 0
    seen: float = 0.0
    precision: str = ""
    costs: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Promise:
    """What calibration measured at one tolerance.

    Attributes:
        tolerance: a share of a score's scale.
        images: how many there are.
        counts: how many get each granularity.
        within: share of those below fine whose scores are all within the tolerance; NaN for none.
        time: of the encoders, as a share of that of fine.
    """

    tolerance: float
    images: int
    counts: dict[str, int]
    within: float
    time: float

    @property
    def below(self) -> int:
        """How many images stay below fine."""
        return self.images - self.counts[FINE]


@dataclass(frozen=True)
class Calibration:
    """The result of calibrating a model.

    Attributes:
        estimators: by granularity, the cheapest first.
        measured: by granularity, e and \\|s' - s\\| of each target as shares of the scale, float32 (n, targets, 2); NaN
            if a target is not scored.
        is_familiar: whether each of these images is like the others, bool (n,).
        part: of the prompts, int64 (n,).
        reference: of f_c.
        on: what it comes from.
        digest: eight hexadecimal digits of its file.
    """

    estimators: dict[str, FineEstimator]
    measured: dict[str, Tensor]
    is_familiar: Tensor
    part: Tensor
    reference: Reference
    on: CalibratedOn
    digest: str = ""

    def familiar(self, f_c: Tensor, model: Reference | None) -> Tensor:
        """Return whether each f_c, float32 (batch, D), is like those of the calibration, bool (batch,).

        If the model has a reference of its own training features, the estimated fine feature must be like these too.
        """
        found = are_familiar(self.reference, f_c, f_c[:, :0])
        if model is not None:
            found &= are_familiar(model, f_c, self.estimators[COARSE].fine(f_c))
        return found

    def price(self, tolerance: float) -> float:
        """Return the price of risk at a tolerance; infinite if the tolerance holds at none."""
        below, bad = self._outcomes(tolerance)
        return lowest_price(below.sum(dim=1), bad.sum(dim=1), self.on.seen)

    def choose(self, e: Mapping[str, Tensor], familiar: Tensor, tolerance: float, price: float) -> list[str]:
        """Return the granularity of each image; of an unfamiliar one it is fine.

        Args:
            e: of each granularity, float32 (batch, targets); NaN if a target is not scored.
            familiar: of each image, bool (batch,).
            tolerance: a share of a score's scale.
            price: of risk at this tolerance.
        """
        names = [*self.estimators, FINE]
        places = cheapest(self._costs, self._risks(e, tolerance), price)
        return [names[i] if fits else FINE for i, fits in zip(places.tolist(), familiar.tolist(), strict=True)]

    def promise(self, tolerance: float) -> Promise:
        """Return the changes measured at a tolerance: each part's images have the price that the others set."""
        below, bad = self._outcomes(tolerance)
        names = [FINE] * len(self.part)
        for i in range(PARTS):
            rows = (self.part == i).nonzero().squeeze(1)
            others = [count.sum(dim=1) - count[:, i] for count in (below, bad)]
            price = lowest_price(others[0], others[1], self.on.seen)
            e = {name: found[rows, :, 0] for name, found in self.measured.items()}
            for row, name in zip(rows.tolist(), self.choose(e, self.is_familiar[rows], tolerance, price), strict=True):
                names[row] = name
        errors = [self.measured[name][i, :, 1] for i, name in enumerate(names) if name != FINE]
        within = [bool((error[~error.isnan()] <= tolerance).all()) for error in errors]
        counts = {name: names.count(name) for name in (*self.estimators, FINE)}
        costs = dict(zip(counts, self._costs.tolist(), strict=True))
        time = sum(costs[name] * count for name, count in counts.items()) / max(1, len(names))
        return Promise(tolerance, len(names), counts, float(np.mean(within)) if within else float("nan"), time)

    @property
    def _costs(self) -> Tensor:
        return torch.tensor([*(self.on.costs[name] for name in self.estimators), 1.0], dtype=torch.float64)

    def _risks(self, e: Mapping[str, Tensor], tolerance: float) -> Tensor:
        """Return ``risks`` of e, without limit if a target is scored that no calibration image was scored on."""
        unknown = self.measured[COARSE][..., 0].isnan().all(dim=0)
        together = torch.stack([e[name] for name in self.estimators], dim=1)
        found = risks(together, tolerance)
        found[:, :-1][(unknown & ~together.isnan()).any(dim=2)] = torch.inf
        return found

    def _outcomes(self, tolerance: float) -> tuple[Tensor, Tensor]:
        """Return ``outcomes`` for the familiar images that are scored on as many targets as any."""
        scored = (~self.measured[COARSE][..., 0].isnan()).sum(dim=1)
        rows = self.is_familiar & (scored == scored.max())
        e = {name: found[rows, :, 0] for name, found in self.measured.items()}
        is_bad = torch.stack([(found[rows, :, 1] > tolerance).any(dim=1) for found in self.measured.values()], dim=1)
        return outcomes(self._costs, self._risks(e, tolerance), is_bad, self.part[rows], PARTS)

    def differences(self, name: str, share: float = COVERAGE) -> dict[str, float]:
        """Return by how much scores of a granularity differ from those of fine for a share of images, by target.

        Shares of each target's scale; NaN for a target that was not scored.
        """
        rows = self.measured[name][..., 1]
        found = [error[~error.isnan()].double() for error in rows.unbind(dim=1)]
        sizes = [float(error.quantile(share)) if len(error) else float("nan") for error in found]
        return dict(zip(self.on.targets, sizes, strict=True))

    def require(self, asked: Granularity) -> None:
        """Raise UsageError unless what is asked for was calibrated, holds, and saves time."""
        if asked.kind != "auto":
            if str(asked) not in self.estimators:
                known = ", ".join([*self.estimators, FINE])
                raise UsageError(f"Expected a granularity that was calibrated ({known}), got {asked}: choose one.")
            return
        found = self.promise(asked.tolerance)
        advice = "raise it, or use --granularity fine"
        if found.below < _FEWEST_BELOW:
            raise UsageError(
                f"Expected a tolerance at which calibration kept at least {_FEWEST_BELOW} images below fine, "
                f"got {asked.tolerance:g}, at which it kept {found.below}: {advice}."
            )
        if found.within < COVERAGE:
            raise UsageError(
                f"Expected a tolerance that held for {percent(COVERAGE)} of images that calibration kept below fine, "
                f"got {asked.tolerance:g}, which held for {percent(found.within, 1)}: {advice}."
            )
        if found.time > 1 - LEAST_SAVED:
            raise UsageError(
                f"Expected a tolerance that saved {percent(LEAST_SAVED)} of the encoders' time in calibration, "
                f"got {asked.tolerance:g}, which took {percent(found.time)} of it: {advice}."
            )


def are_familiar(reference: Reference, f_c: Tensor, f_f: Tensor) -> Tensor:
    """Return whether images are familiar to a reference, bool (batch,)."""
    # Rounded, so that batch mates do not change the last digit.
    distances = reference.distance(f_c.numpy(), f_f.numpy()).astype(np.float32)
    return torch.from_numpy(reference.familiarity(distances) >= UNFAMILIAR)


def weights_sha256(model: TrainedModel) -> str:
    """Return the sha256 of what decides scores: the encoders and the trained weights, whatever they are called."""
    found = hashlib.sha256(model.config.encoders.sha256.encode())
    for target, part in sorted(model.parts.items()):
        for name, tensor in part.state_dict().items():
            found.update(f"{target}.{name}".encode() + tensor.detach().cpu().contiguous().numpy().tobytes())
    return found.hexdigest()
