"""How familiar an image is: how far its features are from those of the images that a model was trained on.

    distance(f) = H(generator | f) + 0.1 * min_g (|S_g^-1/2 (a - c_g)|^2 + log det S_g) + 0.1 * mean_k (p_k . x)^2 / v_k
    x = (f - mean) / scale, f = [f_c ; f_f]        a = W x

W is a linear discriminant that names the generator g, with centres c_g and covariances S_g. The first term is its
entropy: an image of an unknown generator may be between the known ones. The second is the distance from the nearest
generator, and the third that from all images, in the leading principal components p_k: they find what is unlike every
generator. Familiarity is the share of held-out images that are at least as far away.

Source: Lee et al., A simple unified framework for detecting out-of-distribution samples, 2018 (class means and
covariances in feature space). The sum and its weights are ours; they were chosen on generators left out of training.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from mst_clipiqa.errors import DataError
from mst_clipiqa.evaluate.caution import UNFAMILIAR

_COMPONENTS = 128  # principal components of the Mahalanobis distance
_DISTANCE_WEIGHT = 0.1  # of a squared distance beside the entropy, in nats
_SHRINKAGE = 0.05  # of the covariance within generators, towards a multiple of the identity
_COVARIANCE_FLOOR = 0.2  # added to the covariance of each generator along the discriminants, where it is about 1
_TEMPERATURE = 2.0  # of the discriminant, which is too sure of itself outside the training images
_FEWEST_IMAGES = 20  # images of a generator that count as one
_QUANTILES = np.linspace(0, 1, 201)
_FARTHEST = 3.0  # the excess at which intervals stop growing


@dataclass(frozen=True)
class Reference:
    """A compact description of the features that a model was trained on.

    Attributes:
        mean, scale: of the features, float (2D,).
        components: principal components of the standardised features, each divided by its deviation, float (2D, C).
        discriminants: directions that tell the generators apart, in units of the deviation within one, float (2D, R).
        centres: each generator's mean along them, float (G, R); empty with fewer than two generators.
        whiteners: S_g^-1/2 of each generator along them, float (G, R, R).
        held: quantiles of the distance of held-out images of the training kind, float (201,); empty until calibrated.
    """

    mean: np.ndarray
    scale: np.ndarray
    components: np.ndarray
    discriminants: np.ndarray
    centres: np.ndarray
    whiteners: np.ndarray
    held: np.ndarray = field(default_factory=lambda: np.zeros(0))

    def distance(self, f_c: np.ndarray, f_f: np.ndarray) -> np.ndarray:
        """Return the distance of each image from the reference, float64 (n,), from features, float (n, D)."""
        x = (np.concatenate([f_c, f_f], axis=1).astype(np.float64) - self.mean) / self.scale
        far = _DISTANCE_WEIGHT * (_product(x, self.components) ** 2).mean(axis=1)
        if not len(self.centres):
            return np.asarray(far)
        apart = _product(x, self.discriminants)[:, None] - self.centres
        within = (np.einsum("ngr,grs->ngs", apart, self.whiteners) ** 2).sum(axis=2)
        within -= 2 * np.linalg.slogdet(self.whiteners)[1]
        far += _DISTANCE_WEIGHT * within.min(axis=1)
        away = (apart**2).sum(axis=2)
        logits = (away.min(axis=1, keepdims=True) - away) / (2 * _TEMPERATURE)
        p = np.exp(logits)
        p /= p.sum(axis=1, keepdims=True)
        return np.asarray(far - (p * np.log(np.maximum(p, 1e-300))).sum(axis=1))

    def calibrated(self, distances: np.ndarray) -> Reference:
        """Return the reference with the distances of held-out images of the training kind, float (n,).

        Raises:
            DataError: there are fewer than 20, too few for a 5th percentile.
        """
        if len(distances) < _FEWEST_IMAGES:
            raise DataError(
                f"Expected at least {_FEWEST_IMAGES} held-out images to calibrate familiarity, got {len(distances)}."
            )
        return dataclasses.replace(self, held=np.quantile(distances, _QUANTILES))

    def familiarity(self, distances: np.ndarray) -> np.ndarray:
        """Return the share of held-out images at least as far away, float (n,), 0..1; 1 is most familiar."""
        return np.asarray(1 - np.interp(distances, self.held, _QUANTILES, left=0.0, right=1.0))

    def excess(self, distances: np.ndarray) -> np.ndarray:
        """Return how far beyond the median held-out image each is, float (n,), 0..3; 1 at the 95th percentile."""
        middle, far = np.interp([0.5, 1 - UNFAMILIAR], _QUANTILES, self.held)
        return np.asarray(np.clip((distances - middle) / max(far - middle, 1e-9), 0, _FARTHEST))

    def to_arrays(self) -> dict[str, np.ndarray]:
        """Return the arrays that a file holds: float16 where there are many numbers, else float32."""
        many = {"components", "discriminants"}
        return {
            f.name: np.ascontiguousarray(getattr(self, f.name), np.float16 if f.name in many else np.float32)
            for f in dataclasses.fields(self)
        }

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray]) -> Reference:
        """Return the reference that a file holds.

        Raises:
            DataError: an array is missing, or of another shape than the others.
        """
        names = [f.name for f in dataclasses.fields(cls)]
        if sorted(arrays) != sorted(names):
            raise DataError(f"Expected the arrays {', '.join(names)}, got {', '.join(sorted(arrays)) or 'none'}.")
        found = cls(**{name: np.asarray(arrays[name], np.float64) for name in names})
        wide, along = len(found.mean), found.discriminants.shape[-1]
        shapes = [found.scale.shape == (wide,), found.components.shape[:1] == found.discriminants.shape[:1] == (wide,)]
        shapes += [found.whiteners.shape == (len(found.centres), along, along) or not len(found.centres)]
        shapes += [found.centres.shape[-1] == along or not len(found.centres), found.held.shape == _QUANTILES.shape]
        if not all(shapes) or not (found.scale > 0).all() or (np.diff(found.held) < 0).any():
            raise DataError("Expected arrays of one reference, got shapes or values that do not fit together.")
        return found


def _product(x: np.ndarray, directions: np.ndarray) -> np.ndarray:
    """Return x @ directions in this thread alone: BLAS would start one per core, to wait for cores that encode."""
    return np.asarray(np.einsum("nd,dc->nc", x, directions))


def make_reference(f_c: np.ndarray, f_f: np.ndarray, generators: Sequence[str | None]) -> Reference:
    """Return the reference of training images, not calibrated yet.

    Args:
        f_c, f_f: features, float (n, D).
        generators: the generator of each image; None or "" if unknown.

    Raises:
        DataError: there are fewer than two images.
    """
    f = np.concatenate([f_c, f_f], axis=1).astype(np.float64)
    if len(f) < 2 or len(generators) != len(f):
        raise DataError(f"Expected two images or more, each with its generator, got {len(f)} and {len(generators)}.")
    mean, scale = f.mean(axis=0), np.maximum(f.std(axis=0), 1e-6)
    x = (f - mean) / scale
    values, vectors = np.linalg.eigh(x.T @ x / len(x))
    kept = np.argsort(values)[::-1][: min(_COMPONENTS, len(f) - 1)]
    kept = kept[values[kept] > 1e-6]
    discriminants, centres, whiteners = _discriminants(x, np.array([name or "" for name in generators]))
    components = vectors[:, kept] / np.sqrt(values[kept])
    return _rounded(Reference(mean, scale, components, discriminants, centres, whiteners))


def _rounded(reference: Reference) -> Reference:
    """Return the reference as a file will hold it, so that it is calibrated on the distances that it will measure."""
    return Reference(**{name: array.astype(np.float64) for name, array in reference.to_arrays().items()})


def _discriminants(x: np.ndarray, names: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return directions (2D, R), centres (G, R) and whiteners (G, R, R) of a linear discriminant."""
    known = sorted(name for name, n in Counter(names.tolist()).items() if name and n >= _FEWEST_IMAGES)
    if len(known) < 2:
        return np.zeros((x.shape[1], 0)), np.zeros((0, 0)), np.zeros((0, 0, 0))
    means = np.stack([x[names == name].mean(axis=0) for name in known])
    within = np.concatenate([x[names == name] - mean for name, mean in zip(known, means, strict=True)])
    covariance = within.T @ within / len(within)
    even = np.trace(covariance) / len(covariance) * np.eye(len(covariance))
    values, vectors = np.linalg.eigh((1 - _SHRINKAGE) * covariance + _SHRINKAGE * even)
    whiten = vectors / np.sqrt(np.maximum(values, 1e-12))
    # All that tells the generators apart is in the span of their whitened means.
    spread = (means - means.mean(axis=0)) @ whiten
    _, size, directions = np.linalg.svd(spread, full_matrices=False)
    discriminants = whiten @ directions[size > 1e-9 * size.max()].T
    whiteners = [_whitener(x[names == name] @ discriminants) for name in known]
    return discriminants, means @ discriminants, np.stack(whiteners)


def _whitener(a: np.ndarray) -> np.ndarray:
    """Return S^-1/2 of points, float (n, R)."""
    values, vectors = np.linalg.eigh(np.cov(a.T).reshape(a.shape[1], -1) + _COVARIANCE_FLOOR * np.eye(a.shape[1]))
    return np.asarray(vectors / np.sqrt(values) @ vectors.T)
