"""When an image needs no more than a coarser granularity: limits on e, calibrated for a tolerance.

An image stays at a granularity if e of each target is at most the limit of that target, and it is familiar:

limit(TOL) = the largest e such that, of calibration images with at most this e, all but a share of 5 % / targets
             have |s' - s| <= TOL

A third of the prompts fit the estimators, a third give the limits, and the last third checks what they promise: of the
images that stay below fine, at least 95 % are within the tolerance in every target.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import numpy as np
import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from mst_clipiqa.errors import DataError, ModelError, UsageError, shown
from mst_clipiqa.evaluate import UNFAMILIAR, Reference
from mst_clipiqa.model_folder import TrainedModel
from mst_clipiqa.scoring.fine_estimator import FineEstimator
from mst_clipiqa.scoring.granularity import COARSE, FINE, Granularity, cheaper_than_fine
from mst_clipiqa.tables.atomic import write_atomically

COVERAGE = 0.95
"""Share of the images below fine that must be within a tolerance."""
LEAST_SAVED = 0.05
"""Share of the encoders' time that a tolerance must save."""
_FEWEST_BELOW = 20  # images below fine from which a share can be estimated
_ADVICE = "run mst-clipiqa calibrate on rated images, or use --granularity fine"


@dataclass(frozen=True)
class CalibratedOn:
    """What a calibration comes from.

    Attributes:
        model: ``owner_of`` the model that it belongs to.
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
    """What calibration measured on the last third of the prompts at one tolerance.

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
        held: by granularity, e and \\|s' - s\\| of each target for the images that give the limits, as shares of the
            scale, float32 (n, targets, 2); NaN if a target is not scored.
        check: the same of the last third.
        check_familiar: whether each of these is familiar, bool (m,).
        reference: of f_c.
        on: what it comes from.
        digest: eight hexadecimal digits of its file.
    """

    estimators: dict[str, FineEstimator]
    held: dict[str, Tensor]
    check: dict[str, Tensor]
    check_familiar: Tensor
    reference: Reference
    on: CalibratedOn
    digest: str = ""

    def familiar(self, f_c: Tensor, model: Reference | None) -> Tensor:
        """Return whether each f_c, float32 (batch, D), is like those of the calibration, bool (batch,).

        If the model has a reference of its own training features, the estimated fine feature must be like these too.
        """
        found = _is_familiar(self.reference, f_c, f_c[:, :0])
        if model is not None:
            found &= _is_familiar(model, f_c, self.estimators[COARSE].fine(f_c))
        return found

    def limits(self, tolerance: float) -> dict[str, Tensor]:
        """Return the limit of each granularity's e at a tolerance, float32 (targets,); -inf where none holds."""
        return {
            name: torch.tensor([_limit(rows, tolerance, held.shape[1]) for rows in held.unbind(dim=1)])
            for name, held in self.held.items()
        }

    def chosen(self, e: Mapping[str, Tensor], familiar: Tensor, limits: Mapping[str, Tensor]) -> list[str]:
        """Return the cheapest granularity of each image that is within its limits, or fine.

        Args:
            e: of each granularity and target, float32 (batch, targets); NaN if a target is not scored.
            familiar: of each image, bool (batch,).
            limits: of each granularity, float32 (targets,).
        """
        found = [FINE] * len(familiar)
        for name in reversed(self.estimators):
            stays = familiar & ((e[name] <= limits[name]) | e[name].isnan()).all(dim=1)
            found = [name if stay else had for stay, had in zip(stays.tolist(), found, strict=True)]
        return found

    def promise(self, tolerance: float) -> Promise:
        """Return what was measured at a tolerance, on images that neither fitted nor calibrated anything."""
        e = {name: rows[..., 0] for name, rows in self.check.items()}
        names = self.chosen(e, self.check_familiar, self.limits(tolerance))
        errors = [self.check[name][i, :, 1] for i, name in enumerate(names) if name != FINE]
        within = [bool((error[~error.isnan()] <= tolerance).all()) for error in errors]
        counts = {name: names.count(name) for name in (*self.estimators, FINE)}
        costs = self.on.costs | {FINE: 1.0}
        time = sum(costs[name] * count for name, count in counts.items()) / max(1, len(names))
        return Promise(tolerance, len(names), counts, float(np.mean(within)) if within else float("nan"), time)

    def differences(self, name: str, share: float = COVERAGE) -> dict[str, float]:
        """Return by how much scores of a granularity differ from those of fine for a share of images, by target.

        Shares of each target's scale, over the last third of the prompts; NaN for a target that was not scored.
        """
        rows = self.check[name][..., 1]
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
                f"Expected a tolerance that held for {COVERAGE:.0%} of the images that calibration kept below fine, "
                f"got {asked.tolerance:g}, which held for {found.within:.1%}: {advice}."
            )
        if found.time > 1 - LEAST_SAVED:
            raise UsageError(
                f"Expected a tolerance that saved {LEAST_SAVED:.0%} of the encoders' time in calibration, "
                f"got {asked.tolerance:g}, which took {found.time:.0%} of it: {advice}."
            )

    def save(self, path: Path) -> None:
        """Write to one safetensors file."""
        tensors = {f"reference.{name}": torch.from_numpy(a) for name, a in self.reference.to_arrays().items()}
        tensors["check_familiar"] = self.check_familiar
        for name, estimator in self.estimators.items():
            tensors |= {f"{name}.weight": estimator.weight.half(), f"{name}.spread": estimator.spread.half()}
            tensors |= {f"{name}.held": self.held[name].half(), f"{name}.check": self.check[name].half()}
        whole = {name: tensor.contiguous() for name, tensor in tensors.items()}
        write_atomically(path, safetensors.torch.save(whole, metadata={"on": json.dumps(asdict(self.on))}))

    @classmethod
    def load(cls, path: Path, model: TrainedModel) -> Calibration:
        """Return the calibration of a model.

        Raises:
            ModelError: there is none, it belongs to another model, or it is damaged.
        """
        if not path.is_file():
            raise ModelError(f"Expected {path.name} beside the model, got none in {path.parent}: {_ADVICE}.")
        raw = path.read_bytes()
        try:
            on = _origin(raw)
            tensors = safetensors.torch.load(raw)
            if on.model != (owner := owner_of(model)):
                raise ModelError(
                    f"Expected {path} to belong to this model ({owner[:12]}), got {on.model[:12]}: {_ADVICE}."
                )
            found = _read(tensors, on, model)
        except (SafetensorError, KeyError, TypeError, ValueError, RecursionError, DataError) as error:
            if isinstance(error, ModelError):
                raise
            raise ModelError(f"Expected a calibration in {path}, got {shown(error)}: {_ADVICE}.") from error
        return replace(found, digest=hashlib.sha256(raw).hexdigest()[:8])


def _is_familiar(reference: Reference, f_c: Tensor, f_f: Tensor) -> Tensor:
    # Rounded, so that batch mates do not change the last digit.
    distances = reference.distance(f_c.numpy(), f_f.numpy()).astype(np.float32)
    return torch.from_numpy(reference.familiarity(distances) >= UNFAMILIAR)


def owner_of(model: TrainedModel) -> str:
    """Return the sha256 of what decides scores: the encoders and the trained weights, whatever they are called."""
    found = hashlib.sha256(model.config.encoders.sha256.encode())
    for target, part in sorted(model.parts.items()):
        for name, tensor in part.state_dict().items():
            found.update(f"{target}.{name}".encode() + tensor.detach().cpu().contiguous().numpy().tobytes())
    return found.hexdigest()


def _limit(rows: Tensor, tolerance: float, targets: int) -> float:
    """Return the limit of one target's e, from e and |s' - s| of images, float32 (n, 2)."""
    e, error = rows[~rows.isnan().any(dim=1)].double().unbind(dim=1)
    order = e.argsort(stable=True)
    e, bad = e[order], (error[order] > tolerance).cumsum(0)
    # One more bad image, as in split-conformal intervals: with few images no limit holds.
    holds = (bad + 1) / (torch.arange(len(e)) + 2) <= (1 - COVERAGE) / targets
    # Images of equal e go together.
    last = torch.cat([e[1:] > e[:-1], torch.ones(min(1, len(e)), dtype=torch.bool)])
    places = (holds & last).nonzero()
    if not len(places):
        return -float("inf")
    at = int(places[-1])
    return float(e[at]) if at + 1 == len(e) else float(e[at : at + 2].mean())


def _origin(raw: bytes) -> CalibratedOn:
    """Return what the header of a file says it comes from."""
    length = int.from_bytes(raw[:8], "little")
    found = json.loads(json.loads(raw[8 : 8 + length])["__metadata__"]["on"])
    costs = {str(name): float(cost) for name, cost in found["costs"].items()}
    return CalibratedOn(**(found | {"targets": tuple(map(str, found["targets"])), "costs": costs}))


def _read(tensors: Mapping[str, Tensor], on: CalibratedOn, model: TrainedModel) -> Calibration:
    """Return the calibration that a file holds; ValueError if it does not fit the model."""
    encoders, names = model.config.encoders, cheaper_than_fine(model.config.view)
    dim_f, targets = encoders.dim_fine or encoders.dim, len(model.config.targets)
    estimators, familiar = {}, tensors["check_familiar"]
    for name in names:
        weight, spread, held, check = (tensors[f"{name}.{part}"] for part in ("weight", "spread", "held", "check"))
        inputs = encoders.dim + (0 if name == names[0] else dim_f)
        fits = weight.shape == (inputs + 1, dim_f) and spread.shape[1:] == (dim_f,) and name in on.costs
        fits = fits and held.shape[1:] == (targets, 2) and check.shape == (len(familiar), targets, 2)
        if not fits or not weight.isfinite().all() or not spread.isfinite().all():
            raise ValueError(f"numbers of {name} that do not fit it")
        estimators[name] = FineEstimator(weight.float(), spread.float())
    arrays = {k.removeprefix("reference."): v.numpy() for k, v in tensors.items() if k.startswith("reference.")}
    return Calibration(
        estimators,
        {name: tensors[f"{name}.held"].float() for name in names},
        {name: tensors[f"{name}.check"].float() for name in names},
        familiar.bool(),
        Reference.from_arrays(arrays),
        on,
    )
