"""What the coarse stream says about the fine one, and how much a score can depend on the rest.

f_f' = A f_c + b                 estimate of the fine feature (ridge regression)
s'   = score(f_c, f_f')          through the same fusion and heads, so any prompt works
e    = deviation of score(f_c, f_f' + r_i) over residuals r_i = f_f - f_f' kept from calibration
|s - s'| <= k e                  k: split-conformal, for a chosen share of images of new prompts
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import safetensors.torch
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from mst_clipiqa.encoders.mini.pair import MINI
from mst_clipiqa.errors import DataError, ModelError, UsageError
from mst_clipiqa.evaluate import conformal_halfwidth
from mst_clipiqa.scoring.predictor import Predictor

ESTIMATOR_FILE = "adaptive.safetensors"
COVERAGE = 0.95
"""Share of skipped images that must be within a tolerance, in calibration, for it to be accepted."""
_CALIBRATED_AT = 0.97  # a little more, because errors on images of one prompt are correlated
_RESIDUALS = 16  # kept from calibration
_FEWEST = 20  # skipped images from which a share can be estimated
_RIDGE = 100.0
_FLOOR = 1e-3  # smallest e, in native units: no image is that certain


@dataclass(frozen=True)
class FineEstimator:
    """The result of calibrating a model.

    Attributes:
        weight: A and b, float32 (D + 1, D).
        residuals: r_i, float32 (n, D).
        factors: k of each target; infinite if calibration could score no image.
        model: sha256 of the trained model it belongs to.
        check: the largest bound and the largest true error over the targets, of images that neither fitted nor
            calibrated anything, native units, float32 (m, 2).
    """

    weight: Tensor
    residuals: Tensor
    factors: dict[str, float]
    model: str
    check: Tensor = field(default_factory=lambda: torch.zeros(0, 2))

    def fine(self, f_c: Tensor) -> Tensor:
        """Return f_f', float32 (batch, D)."""
        return f_c @ self.weight[:-1] + self.weight[-1]

    def bounds(self, predictor: Predictor, f_c: Tensor, prompts: Sequence[str | None]) -> dict[str, Tensor]:
        """Return k e of each target, native units, float32 (batch,); 0 if a target is not scored."""
        spreads = spread(self, predictor, f_c, prompts).items()
        return {name: (self.factors[name] * e).nan_to_num(0.0, posinf=math.inf) for name, e in spreads}

    def measured(self, tolerance: float) -> tuple[int, float]:
        """Return how many images of the check a tolerance skips, and the share of them within it; NaN for none."""
        errors = self.check[self.check[:, 0] <= tolerance, 1]
        return len(errors), float((errors <= tolerance).float().mean())

    def require(self, tolerance: float) -> None:
        """Raise UsageError unless a tolerance skips images of the check and holds for ``COVERAGE`` of them."""
        count, share = self.measured(tolerance)
        advice = "raise it, or leave --adaptive out"
        if count < _FEWEST:
            raise UsageError(
                f"Expected a tolerance at which calibration skipped at least {_FEWEST} images, got {tolerance:g}, "
                f"at which it skipped {count}: {advice}."
            )
        if share < COVERAGE:
            raise UsageError(
                f"Expected a tolerance that held for {COVERAGE:.0%} of the images that calibration skipped, "
                f"got {tolerance:g}, which held for {share:.1%}: {advice}."
            )

    def save(self, path: Path) -> None:
        """Write to one safetensors file."""
        tensors = {name: getattr(self, name).contiguous() for name in ("weight", "residuals", "check")}
        tensors |= {f"factor.{name}": torch.tensor(k) for name, k in self.factors.items()}
        path.write_bytes(safetensors.torch.save(tensors, metadata={"model": self.model}))

    @classmethod
    def load(cls, path: Path, model: str) -> FineEstimator:
        """Return the estimator of the model with this sha256; ModelError if there is none that fits."""
        advice = "run mst-clipiqa calibrate-adaptive on rated images, or leave --adaptive out"
        if not path.is_file():
            raise ModelError(
                f"Expected {path.name} beside the model for --adaptive, got none in {path.parent}: {advice}."
            )
        try:
            with safe_open(path, "pt") as file:
                owner = (file.metadata() or {}).get("model", "")
                tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
            factors = {k.removeprefix("factor."): float(v) for k, v in tensors.items() if k.startswith("factor.")}
            found = cls(tensors["weight"], tensors["residuals"], factors, owner, tensors["check"])
        except (SafetensorError, KeyError, OSError, ValueError) as error:
            raise ModelError(f"Expected a calibration in {path}, got {error}: {advice}.") from error
        if owner != model:
            raise ModelError(f"Expected {path} to belong to this model ({model[:12]}), got {owner[:12]}: {advice}.")
        return found


@torch.inference_mode()
def spread(
    estimator: FineEstimator, predictor: Predictor, f_c: Tensor, prompts: Sequence[str | None]
) -> dict[str, Tensor]:
    """Return e of each target, float32 (batch,): how much its score varies with what f_c does not determine."""
    f_f, n = estimator.fine(f_c), len(estimator.residuals)
    rows = values(
        predictor,
        f_c.repeat(n, 1),
        (f_f.unsqueeze(0) + estimator.residuals.unsqueeze(1)).flatten(0, 1),
        [prompt for _ in range(n) for prompt in prompts],
    )
    return {name: scores.view(n, -1).std(dim=0).clamp(min=_FLOOR).nan_to_num(0.0) for name, scores in rows.items()}


def values(predictor: Predictor, f_c: Tensor, f_f: Tensor, prompts: Sequence[str | None]) -> dict[str, Tensor]:
    """Return every target's score in native units, float32 (batch,); NaN if it is not scored."""
    scores = predictor.predict(f_c, f_f, prompts)
    names = predictor.config.targets
    return {n: torch.tensor([float("nan") if (v := s.targets[n]) is None else v for s in scores]) for n in names}


def calibrate(
    predictor: Predictor, f_c: Tensor, f_f: Tensor, prompts: Sequence[str | None], groups: Sequence[str]
) -> FineEstimator:
    """Fit an estimator on a third of the groups, calibrate its bound on another, and check it on the last.

    Args:
        predictor: of the trained model.
        f_c, f_f: features, float32 (images, D).
        prompts: of each image.
        groups: of each image; images of one group (prompt) stay together.

    Raises:
        DataError: too few images, or of one group only.
    """
    names = sorted(set(groups))
    part_of = {name: i % 3 for i, name in enumerate(names)}
    part = torch.tensor([part_of[group] for group in groups])
    if min(int((part == i).sum()) for i in range(3)) < 4 * _RESIDUALS:
        raise DataError(f"Expected at least {12 * _RESIDUALS} images of three prompts or more, got {len(groups)}.")
    fit = part == 0
    x = torch.cat([f_c, torch.ones(len(f_c), 1)], dim=1).double()
    a = x[fit].T @ x[fit] + _RIDGE * torch.eye(x.shape[1], dtype=torch.float64)
    weight = torch.linalg.solve(a, x[fit].T @ f_f[fit].double()).float()
    held = (part == 1).nonzero()[:, 0]
    # Residuals come from images that the regression has not seen, each of another prompt if there are enough of them.
    # That k is calibrated on these images too matters little, since e only scales the bound.
    residuals = (f_f - (x.float() @ weight))[held[:: max(1, len(held) // _RESIDUALS)][:_RESIDUALS]]
    estimator = FineEstimator(weight, residuals, {}, predictor.model.sha256)
    some = [prompts[int(i)] for i in held]
    true = values(predictor, f_c[held], f_f[held], some)
    guess = values(predictor, f_c[held], estimator.fine(f_c[held]), some)
    factors = {}
    for name, e in spread(estimator, predictor, f_c[held], some).items():
        ratios = ((true[name] - guess[name]).abs() / e)[~true[name].isnan()]
        factors[name] = conformal_halfwidth(ratios.numpy(), _CALIBRATED_AT) if len(ratios) else math.inf
    estimator = dataclasses.replace(estimator, factors=factors)
    last = (part == 2).nonzero()[:, 0]
    return dataclasses.replace(estimator, check=_checked(estimator, predictor, (f_c[last], f_f[last]), prompts, last))


def _checked(
    estimator: FineEstimator,
    predictor: Predictor,
    features: tuple[Tensor, Tensor],
    prompts: Sequence[str | None],
    rows: Tensor,
) -> Tensor:
    """Return the largest bound and the largest true error over the targets, float32 (rows, 2)."""
    (f_c, f_f), some = features, [prompts[int(i)] for i in rows]
    true, guess = values(predictor, f_c, f_f, some), values(predictor, f_c, estimator.fine(f_c), some)
    bounds = torch.stack(list(estimator.bounds(predictor, f_c, some).values())).amax(dim=0)
    errors = torch.stack([(true[name] - guess[name]).abs().nan_to_num(0.0) for name in true]).amax(dim=0)
    return torch.stack([bounds, errors], dim=1)


def estimator_path(folder: Path | None) -> Path:
    """Return the path of a model folder's estimator; UsageError for zero-shot, which has no folder, and for mini."""
    if folder is None:
        raise UsageError("The flag --adaptive needs a trained model, and zero-shot has none: name a model folder.")
    if folder.resolve() == MINI.parent.resolve():
        raise UsageError(
            "The flag --adaptive is not for mini: it made the earlier encoders slower, and the present ones have not "
            "been measured. Leave it out."
        )
    return folder / ESTIMATOR_FILE
