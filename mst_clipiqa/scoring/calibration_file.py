"""A calibration on disk: one safetensors file beside the model, checked against it when read."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor

from mst_clipiqa.encoders.checks import expecting
from mst_clipiqa.errors import ModelError, UsageError, shown
from mst_clipiqa.evaluate import Reference
from mst_clipiqa.model_folder import TrainedModel
from mst_clipiqa.scoring.calibration import PARTS, CalibratedOn, Calibration, weights_sha256
from mst_clipiqa.scoring.fine_estimator import FineEstimator
from mst_clipiqa.scoring.granularity import CALIBRATION_FILE, cheaper_than_fine
from mst_clipiqa.tables.atomic import write_atomically

CALIBRATION_FORMAT = "3"
"""1 had limits on e in place of a price, 2 had estimates that are linear in x."""
_ADVICE = "run mst-clipiqa calibrate on rated images, or use --granularity fine"


def calibration_path(folder: Path | None) -> Path:
    """Return the path of a model folder's calibration; UsageError for zero-shot, which has no folder."""
    if folder is None:
        raise UsageError("Expected a trained model for --granularity, got zero-shot: name a model folder, or use fine.")
    return folder / CALIBRATION_FILE


def save_calibration(found: Calibration, path: Path) -> None:
    """Write a calibration to one safetensors file."""
    tensors = {f"reference.{name}": torch.from_numpy(a) for name, a in found.reference.to_arrays().items()}
    tensors |= {"is_familiar": found.is_familiar, "part": found.part.to(torch.uint8)}
    for name, estimator in found.estimators.items():
        tensors |= {f"{name}.{kind}": getattr(estimator, kind).half() for kind in ("landmarks", "weight", "spread")}
        tensors[f"{name}.width"] = estimator.width
        tensors[f"{name}.measured"] = found.measured[name].half()
    whole = {name: tensor.contiguous() for name, tensor in tensors.items()}
    about = {"calibration_format": CALIBRATION_FORMAT, "on": json.dumps(asdict(found.on))}
    write_atomically(path, safetensors.torch.save(whole, metadata=about))


def load_calibration(path: Path, model: TrainedModel) -> Calibration:
    """Return the calibration of a model.

    Raises:
        ModelError: there is none, it belongs to another model, or it is damaged or of an earlier version.
    """
    if not path.is_file():
        raise ModelError(f"Expected {path.name} beside the model, got none in {path.parent}: {_ADVICE}.")
    raw = path.read_bytes()
    with expecting(f"a calibration in {path}", _ADVICE):
        on = _origin(raw, path)
        tensors = safetensors.torch.load(raw)
        if on.model != (own := weights_sha256(model)):
            raise ModelError(f"Expected {path} to belong to this model ({own[:12]}), got {on.model[:12]}: {_ADVICE}.")
        found = _read(tensors, on, model)
    return replace(found, digest=hashlib.sha256(raw).hexdigest()[:8])


def _origin(raw: bytes, path: Path) -> CalibratedOn:
    """Return the origin of a calibration from the header of its file; ModelError if it is of another version."""
    length = int.from_bytes(raw[:8], "little")
    about = json.loads(raw[8 : 8 + length])["__metadata__"]
    found = json.loads(about["on"])
    if (version := about.get("calibration_format", "1")) != CALIBRATION_FORMAT:
        raise ModelError(
            f"Expected a calibration of format {CALIBRATION_FORMAT} in {path}, got {shown(version)}: {_ADVICE}."
        )
    costs = {str(name): float(cost) for name, cost in found["costs"].items()}
    return CalibratedOn(**(found | {"targets": tuple(map(str, found["targets"])), "costs": costs}))


def _read(tensors: Mapping[str, Tensor], on: CalibratedOn, model: TrainedModel) -> Calibration:
    """Return the calibration that a file holds; ValueError if it does not fit the model."""
    encoders, names = model.config.encoders, cheaper_than_fine(model.config.view)
    dim_f, targets = encoders.dim_fine or encoders.dim, len(model.config.targets)
    estimators, is_familiar, part = {}, tensors["is_familiar"].bool(), tensors["part"].long()
    fits = part.shape == is_familiar.shape == (len(part) or 1,) and bool((part < PARTS).all())
    fits &= set(on.costs) == set(names)
    fits &= all(0 < cost < math.inf for cost in on.costs.values())
    for name in names:
        kinds = ("landmarks", "width", "weight", "spread")
        landmarks, width, weight, spread = found = [tensors[f"{name}.{kind}"].float() for kind in kinds]
        inputs = encoders.dim + (0 if name == names[0] else dim_f)
        fits &= landmarks.shape[1:] == (inputs,) and width.shape == () and bool((width > 0).all())
        fits &= weight.shape == (inputs + len(landmarks) + 1, dim_f) and spread.shape[1:] == (dim_f,)
        fits &= tensors[f"{name}.measured"].shape == (len(part), targets, 2)
        if not fits or not all(tensor.isfinite().all() for tensor in found):
            raise ValueError(f"numbers of {name} that do not fit it")
        estimators[name] = FineEstimator(landmarks, width, weight, spread)
    arrays = {k.removeprefix("reference."): v.numpy() for k, v in tensors.items() if k.startswith("reference.")}
    measured_all = {name: tensors[f"{name}.measured"].float() for name in names}
    return Calibration(estimators, measured_all, is_familiar, part, Reference.from_arrays(arrays), on)
