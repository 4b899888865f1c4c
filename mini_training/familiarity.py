"""Add to a trained ``mini`` what it knows of its own errors: the reference of its features, and widening intervals.

The shipped model is trained on every prompt, so models that left something out take its place: one left the
development prompts out, the others one generator each. Each of them measures distances from its own training images.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np

from mini_training.data import Rated
from mst_clipiqa.analysis.compare import probability
from mst_clipiqa.evaluate import HeldOut, Reference, Widening, fit_widening, make_reference
from mst_clipiqa.model_folder import load_model, save_model

TARGETS = {"quality": "q", "correspondence": "c"}
"""Of each target, the array of ``outcome`` that holds its scores."""
Arrays = dict[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class Known:
    """A model that left something out.

    Attributes:
        out: the generator that it has not seen; empty if it has seen all.
        new: held-out prompts of its generators, target -> errors.
        left: images of the generator that was left out, target -> errors.
        distances: of the images behind ``new`` from its own reference, float (n,).
        rows: of those images, and of those left out, int (n,): ``new`` and ``left`` in the same order.
        unfamiliar_share: share of unfamiliar images by kind: "new prompts", "left out", "LIVE in the Wild".
    """

    out: str
    new: dict[str, HeldOut]
    left: dict[str, HeldOut]
    distances: np.ndarray
    rows: tuple[np.ndarray, np.ndarray]
    unfamiliar_share: dict[str, float]


def add_familiarity(folder: Path, rated: Rated, final: Arrays, others: list[Arrays]) -> dict[str, object]:
    """Write ``reference.safetensors`` and the widening of each target to a model folder; return what was measured.

    Args:
        folder: the model, saved before.
        rated: AGIQA-3K with LIVE in the Wild.
        final: what the model makes of every image, as ``outcome`` returns it.
        others: the same of models that left out prompts or one generator.
    """
    known = [known_errors(rated, one) for one in others]
    base = next(one for one in known if not one.out)
    outs = [one for one in known if one.out]
    reference = _reference(rated, final).calibrated(base.distances)
    wide: dict[str, Widening] = {}
    for target in TARGETS:
        found = fit_widening(base.new[target], [one.left[target] for one in outs])
        if found is None:
            raise SystemExit("Expected at least nine held-out prompts: train a model without the development prompts.")
        wide[target] = found
    model = load_model(folder)
    targets = {
        name: dataclasses.replace(target, interval=round(wide[name].interval, 3), growth=wide[name].growth)
        for name, target in model.config.targets.items()
    }
    config = dataclasses.replace(model.config, targets=targets)
    save_model(
        dataclasses.replace(model, config=config, reference=reference), folder, (folder / "README.md").read_text()
    )
    farthest = reference.excess(np.array([np.inf]))
    return {
        "widening": {
            name: dataclasses.asdict(one) | {"widest": float(one.halfwidth(farthest)[0]) / one.interval}
            for name, one in wide.items()
        },
        "unfamiliar_share": {one.out or "development": one.unfamiliar_share for one in known},
        "intervals": {target: _reliability(wide[target], rated, base, outs, i) for i, target in enumerate(TARGETS)},
    }


def _reference(rated: Rated, arrays: Arrays) -> Reference:
    """Return the reference of the rated images that a model was trained on; photographs are another task."""
    n = len(rated.names)
    rows = np.flatnonzero(arrays["trained"][:n])
    return make_reference(arrays["f_c"][rows], arrays["f_f"][rows], rated.generators[rows].tolist())


def known_errors(rated: Rated, arrays: Arrays) -> Known:
    """Return the errors of a model on what it left out, from what it makes of every image."""
    n, trained, generators = len(rated.names), arrays["trained"], rated.generators
    seen = set(generators[trained[:n]].tolist())
    out = "".join(set(generators.tolist()) - seen)
    new = np.flatnonzero((rated.part == "development") & ~trained[:n] & np.isin(generators, sorted(seen)))
    left = np.flatnonzero(generators == out)
    bare = _reference(rated, arrays)
    distances = bare.distance(arrays["f_c"], arrays["f_f"])
    reference = bare.calibrated(distances[new])
    unfamiliar, excess = reference.familiarity(distances) < 0.05, reference.excess(distances)
    photos = n + np.flatnonzero(~trained[n:])

    def errors(rows: np.ndarray) -> dict[str, HeldOut]:
        return {
            target: HeldOut(
                np.clip(arrays[key][rows], 0, 5) - rated.ratings[rows, i], excess[rows], rated.prompt_ids[rows].tolist()
            )
            for i, (target, key) in enumerate(TARGETS.items())
        }

    kinds = {"new prompts": new, "left out": left, "LIVE in the Wild": photos}
    share = {kind: round(float(unfamiliar[rows].mean()), 3) for kind, rows in kinds.items() if len(rows)}
    return Known(out, errors(new), errors(left), distances[new], (new, left), share)


def _reliability(wide: Widening, rated: Rated, base: Known, outs: list[Known], column: int) -> dict[str, object]:
    """Return, for new prompts and each generator left out, what intervals cover and how often ``compare`` is right."""
    target = list(TARGETS)[column]
    parts = {"new prompts": (base.new[target], base.rows[0])}
    parts |= {one.out: (one.left[target], one.rows[1]) for one in outs}
    return {name: _reliable(wide, part, rated.ratings[rows, column]) for name, (part, rows) in parts.items()}


def _reliable(wide: Widening, part: HeldOut, ratings: np.ndarray, pairs: int = 5000) -> dict[str, float]:
    """Return the coverage, and over random pairs of images: ``compare``'s mean certainty, and how often it is right."""
    half, scores = wide.halfwidth(part.excess), part.residuals + ratings
    a, b = np.random.default_rng(0).integers(0, len(ratings), (2, pairs))
    a, b = (side[ratings[a] != ratings[b]] for side in (a, b))
    stated = [probability(scores[i] - scores[j], half[i], half[j]) for i, j in zip(a, b, strict=True)]
    right = (scores[a] > scores[b]) == (ratings[a] > ratings[b])
    return {
        "images": len(ratings),
        "covered": round(float(np.mean(np.abs(part.residuals) <= half)), 3),
        "mean half-width": round(float(half.mean()), 2),
        "stated": round(float(np.mean([max(p, 1 - p) for p in stated])), 3),
        "right": round(float(np.mean(right)), 3),
    }
