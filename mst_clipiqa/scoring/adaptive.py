"""Coarse first: run the fine stream only where it could move a score by more than a tolerance.

    f_f' = A f_c + b                 what the fine stream would probably say (ridge regression)
    s'   = score(f_c, f_f')          through the same fusion and heads, so any prompt works
    e    = deviation of score(f_c, f_f' + r_i) over residuals r_i = f_f - f_f' kept from calibration
    |s - s'| <= k e                  k: split-conformal, for a chosen share of images of new prompts

An image whose bound k e is within the tolerance for every target keeps s'; all others are scored in full.
"""

from __future__ import annotations

import dataclasses
import math
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from mst_clipiqa.encoders.pair import encode_stream
from mst_clipiqa.errors import DataError, ModelError, UsageError
from mst_clipiqa.evaluate import conformal_halfwidth
from mst_clipiqa.features.image_encoder import Encoded, Failed, ImageEncoder, Item, Seen
from mst_clipiqa.model.preprocess import Views, coarse_view, fine_views
from mst_clipiqa.scoring.predictor import Predictor
from mst_clipiqa.scoring.scorer import MINI, Request, Score, Scorer

FILE = "adaptive.safetensors"
COVERAGE = 0.95
_CALIBRATED_AT = 0.97  # a little more, because images of one prompt err together and are fewer than they seem
ESTIMATED = "estimated from the coarse stream alone"
_RESIDUALS = 16  # kept, to tell how much a score hangs on what the coarse stream cannot know
_RIDGE = 100.0
_FLOOR = 1e-3  # smallest e, in native units: no image is that certain
_HELD_PIXELS = 2**20  # a larger image is not kept in memory until it is decided: its crops are


@dataclass(frozen=True)
class FineEstimator:
    """What calibration found out about a model.

    Attributes:
        weight: A and b, float32 (D + 1, D).
        residuals: r_i, float32 (n, D).
        factors: k of each target; infinite where calibration met no image that it could score.
        model: sha256 of the trained model that it belongs to.
    """

    weight: Tensor
    residuals: Tensor
    factors: dict[str, float]
    model: str

    def fine(self, f_c: Tensor) -> Tensor:
        """Return f_f', float32 (batch, D)."""
        return f_c @ self.weight[:-1] + self.weight[-1]

    def bounds(self, predictor: Predictor, f_c: Tensor, prompts: Sequence[str | None]) -> dict[str, Tensor]:
        """Return k e of each target, native units, float32 (batch,); 0 where a target has nothing to say."""
        spreads = spread(self, predictor, f_c, prompts).items()
        return {name: (self.factors[name] * e).nan_to_num(0.0, posinf=math.inf) for name, e in spreads}

    def save(self, path: Path) -> None:
        """Write to one safetensors file."""
        tensors = {"weight": self.weight.contiguous(), "residuals": self.residuals.contiguous()}
        tensors |= {f"factor.{name}": torch.tensor(k) for name, k in self.factors.items()}
        path.write_bytes(safetensors.torch.save(tensors, metadata={"model": self.model}))

    @classmethod
    def load(cls, path: Path, model: str) -> FineEstimator:
        """Return the estimator of a model (its sha256); ModelError where there is none that fits."""
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
            found = cls(tensors["weight"], tensors["residuals"], factors, owner)
        except (SafetensorError, KeyError, OSError, ValueError) as error:
            raise ModelError(f"Expected a calibration in {path}, got {error}: {advice}.") from error
        if owner != model:
            raise ModelError(f"Expected {path} to belong to this model ({model[:12]}), got {owner[:12]}: {advice}.")
        return found


@torch.inference_mode()
def spread(
    estimator: FineEstimator, predictor: Predictor, f_c: Tensor, prompts: Sequence[str | None]
) -> dict[str, Tensor]:
    """Return e: how much each target's score varies with what the coarse stream cannot know, float32 (batch,)."""
    f_f, n = estimator.fine(f_c), len(estimator.residuals)
    rows = values(
        predictor,
        f_c.repeat(n, 1),
        (f_f.unsqueeze(0) + estimator.residuals.unsqueeze(1)).flatten(0, 1),
        [prompt for _ in range(n) for prompt in prompts],
    )
    return {name: scores.view(n, -1).std(dim=0).clamp(min=_FLOOR).nan_to_num(0.0) for name, scores in rows.items()}


def values(predictor: Predictor, f_c: Tensor, f_f: Tensor, prompts: Sequence[str | None]) -> dict[str, Tensor]:
    """Return every target's score in native units, float32 (batch,); NaN where it has nothing to say."""
    answers = predictor.answer(f_c, f_f, prompts)
    names = predictor.config.targets
    return {n: torch.tensor([float("nan") if (v := a.values[n]) is None else v for a in answers]) for n in names}


def calibrate(
    predictor: Predictor, f_c: Tensor, f_f: Tensor, prompts: Sequence[str | None], groups: Sequence[str]
) -> FineEstimator:
    """Fit a estimator on one half of the groups and calibrate its bound on the other.

    Args:
        judge: the trained model.
        f_c, f_f: features, float32 (images, D).
        prompts: of each image.
        groups: images of one group (prompt) stay together.

    Raises:
        DataError: too few images, or of one group only.
    """
    names = sorted(set(groups))
    first = set(names[::2])
    fit = torch.tensor([group in first for group in groups])
    if len(names) < 2 or min(int(fit.sum()), int((~fit).sum())) < 4 * _RESIDUALS:
        raise DataError(f"Expected at least {8 * _RESIDUALS} images of two prompts or more, got {len(groups)}.")
    x = torch.cat([f_c, torch.ones(len(f_c), 1)], dim=1).double()
    a = x[fit].T @ x[fit] + _RIDGE * torch.eye(x.shape[1], dtype=torch.float64)
    weight = torch.linalg.solve(a, x[fit].T @ f_f[fit].double()).float()
    held = (~fit).nonzero()[:, 0]
    # Residuals come from images that the regression has not seen, every one of a prompt of its own where there are
    # enough; e only scales the bound, so that they are among those that k is calibrated on does little.
    residuals = (f_f - (x.float() @ weight))[held[:: max(1, len(held) // _RESIDUALS)][:_RESIDUALS]]
    estimator = FineEstimator(weight, residuals, {}, predictor.model.sha256)
    some = [prompts[int(i)] for i in held]
    true = values(predictor, f_c[held], f_f[held], some)
    guess = values(predictor, f_c[held], estimator.fine(f_c[held]), some)
    factors = {}
    for name, e in spread(estimator, predictor, f_c[held], some).items():
        ratios = ((true[name] - guess[name]).abs() / e)[~true[name].isnan()]
        factors[name] = conformal_halfwidth(ratios.numpy(), _CALIBRATED_AT) if len(ratios) else math.inf
    return FineEstimator(weight, residuals, factors, predictor.model.sha256)


@dataclass(frozen=True)
class Estimated(Encoded):
    """An image whose fine feature is a guess that is good enough."""


@dataclass(frozen=True)
class Glimpsed(Seen):
    """An image with its coarse view, and what is needed to make the fine one if it must be."""

    image: Any = None


@dataclass
class Tally:
    """What an adaptive run did: images scored, those whose fine stream was skipped, and errors that were checked."""

    images: int = 0
    skipped: int = 0
    check: int = 0  # how many of those skipped are to be encoded in full all the same
    errors: list[float] = field(default_factory=list)

    def words(self, tolerance: float) -> str:
        """Return one sentence for a person."""
        share = self.skipped / max(1, self.images)
        text = f"The fine stream was skipped for {self.skipped:,} of {self.images:,} images ({share:.0%})."
        if self.errors:
            good = sum(error <= tolerance for error in self.errors)
            text += (
                f" Checked {len(self.errors):,} of them: {good:,} within {tolerance:g}, "
                f"largest difference {max(self.errors):.4f}."
            )
        return text


class AdaptiveEncoder(ImageEncoder):
    """Encodes all images coarsely, and finely those that a bound does not spare."""

    def __init__(
        self, plain: ImageEncoder, predictor: Predictor, estimator: FineEstimator, tolerance: float, check: int
    ) -> None:
        """Take over a plain encoder's pair, cache and sizes."""
        if not tolerance > 0 or check < 0:
            raise UsageError(f"Expected a tolerance above 0 and a check of 0 or more, got {tolerance} and {check}.")
        super().__init__(plain.encoders, batch_size=plain.batch_size, workers=plain.workers)
        self.cache = plain.cache
        self.predictor, self.estimator, self.tolerance = predictor, estimator, tolerance
        self.tally = Tally(check=check)
        self._lock = threading.Lock()  # the judge keeps prompts, and batches come from several threads

    def _views(self, image: Any, size: tuple[int, int], key: str | None) -> Seen:
        spec = self.encoders.view
        coarse = coarse_view(image, spec)
        if image.width * image.height > _HELD_PIXELS:
            return Glimpsed(Views(coarse, fine_views(image, spec)), *size, key)
        return Glimpsed(Views(coarse, None), *size, key, image)

    def _encode_batch(self, batch: Sequence[tuple[Item[Any], Encoded | Failed | Seen]]) -> list[tuple[Any, Any]]:
        seen = [(item, one) for item, one in batch if isinstance(one, Seen)]
        new = iter(self._decide(seen) if seen else [])
        return [(item.tag, next(new) if isinstance(one, Seen) else one) for item, one in batch]

    @torch.inference_mode()
    def _decide(self, seen: Sequence[tuple[Item[Any], Seen]]) -> list[Encoded]:
        f_c = encode_stream(self.encoders, "coarse", self._stacked([one.views.coarse for _, one in seen])).cpu()
        prompts = [item.tag.prompt if isinstance(item.tag, Request) else None for item, _ in seen]
        guess = self.estimator.fine(f_c)
        with self._lock:
            bounds = torch.stack(list(self.estimator.bounds(self.predictor, f_c, prompts).values()))
            spared = (bounds <= self.tolerance).all(dim=0)
            self.tally.images += len(seen)
            self.tally.skipped += int(spared.sum())
            checked = spared.nonzero()[: max(0, self.tally.check), 0].tolist()
            self.tally.check -= len(checked)
        needed = sorted({*(~spared).nonzero()[:, 0].tolist(), *checked})
        f_f = guess.clone()
        if needed:
            fine = self._stacked([self._fine(seen[i][1]) for i in needed])
            f_f[needed] = encode_stream(self.encoders, "fine", fine).cpu()
        if checked:
            self._check(f_c[checked], f_f[checked], guess[checked], [prompts[i] for i in checked])
        kinds = [Estimated if i not in needed else Encoded for i in range(len(seen))]
        return [kind(f_c[i], f_f[i], one.width, one.height) for i, (kind, (_, one)) in enumerate(zip(kinds, seen))]  # noqa: B905

    def _fine(self, one: Seen) -> Tensor:
        if isinstance(one, Glimpsed) and one.image is not None:
            made = fine_views(one.image, self.encoders.view)
            return one.views.coarse if made is None else made
        return one.views.coarse if one.views.fine is None else one.views.fine

    def _check(self, f_c: Tensor, f_f: Tensor, guess: Tensor, prompts: Sequence[str | None]) -> None:
        with self._lock:
            true, estimated = values(self.predictor, f_c, f_f, prompts), values(self.predictor, f_c, guess, prompts)
            differences = torch.stack([(true[name] - estimated[name]).abs().nan_to_num(0.0) for name in true])
            self.tally.errors += differences.amax(dim=0).tolist()


class AdaptiveScorer(Scorer):
    """A scorer that says of each score whether it was estimated; made by ``adaptive``."""

    encoder: AdaptiveEncoder

    def ask(self, encoded: Sequence[Encoded], prompts: Sequence[str | None]) -> list[Score]:
        """Return scores as ``Scorer.ask`` does, those of estimated features with a note."""
        scores = super().ask(encoded, prompts)
        note = f"{ESTIMATED}, within {self.encoder.tolerance:g} for {COVERAGE:.0%} of images"
        return [
            dataclasses.replace(score, reason="; ".join(filter(None, (score.reason, note))))
            if isinstance(one, Estimated)
            else score
            for score, one in zip(scores, encoded, strict=True)
        ]


def home(model: str) -> Path:
    """Return the folder beside whose weights a model's calibration lies; UsageError where it has none."""
    if model.startswith("zero-shot:"):
        raise UsageError(f"Expected a trained model for --adaptive, got {model}: name a model folder.")
    return MINI if model == "mini" else Path(model)


def adaptive(scorer: Scorer, folder: Path, tolerance: float, check: int = 0) -> AdaptiveScorer:
    """Return a scorer that skips the fine stream where ``folder``'s calibration allows it.

    Args:
        scorer: a trained model, as ``Scorer.load`` returns it.
        folder: the model folder, with adaptive.safetensors in it.
        tolerance: largest change of a score that is accepted, in the units of each target.
        check: of how many skipped images to measure the true difference.

    Raises:
        ModelError: the model was not calibrated.
    """
    estimator = FineEstimator.load(folder / FILE, scorer.model.sha256)
    predictor = Predictor(scorer.model, scorer.encoder.encoders)
    return AdaptiveScorer(scorer.model, AdaptiveEncoder(scorer.encoder, predictor, estimator, tolerance, check))
