"""The authors' checkpoints to model folders.

Their training script saves ``model.state_dict()``, frozen encoders included. The trained weights are kept under the
same names; the frozen ones are compared with the given encoders, then dropped.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from mst_clipiqa.encoders.checks import load_pickled
from mst_clipiqa.encoders.clip import CLIPPair
from mst_clipiqa.encoders.clip_vision import VisionTower
from mst_clipiqa.errors import ModelError
from mst_clipiqa.model.mst_clipiqa import MSTCLIPIQA, Head
from mst_clipiqa.model_folder import EncoderRef, ModelConfig, Target, TrainedModel, TrainedOn

_FROZEN = ("mstfe.", "head.text_encoder.", "head.text_features", "head.quality_scores")
_STREAMS = ("encoder_coarse", "encoder_fine")


def convert(checkpoint: Path, encoders: CLIPPair, name: str, target: str = "quality") -> TrainedModel:
    """Return the model in a checkpoint of the authors' training script, variant A or B.

    The authors train on raw ratings as if they were in 1..5, so the target's scale is 1..5 and the scores equal theirs.

    Args:
        checkpoint: a ``.pth`` file; only tensors are read, no code runs.
        encoders: the pair that the checkpoint was trained on.
        name: the name of the new model.
        target: what it was trained to predict.

    Raises:
        ModelError: the file is not such a checkpoint, or it has other encoders.
    """
    state = _read(checkpoint)
    _check_encoders(state, encoders, checkpoint)
    trained = {key: value for key, value in state.items() if not key.startswith(_FROZEN)}
    head: Head = "template" if "head.temperature" in trained else "prompt"
    model = MSTCLIPIQA(encoders.dim, head)
    want = model.state_dict()
    for key in sorted(want.keys() | trained.keys()):
        if key not in trained or key not in want or trained[key].shape != want[key].shape:
            got = tuple(trained[key].shape) if key in trained else "nothing"
            expected = tuple(want[key].shape) if key in want else "nothing"
            raise ModelError(f"Expected {expected} at {key} in {checkpoint} for a {head} head, got {got}.")
    model.load_state_dict(trained)
    config = ModelConfig(name, EncoderRef.of(encoders), {target: Target(head, 1.0, 5.0)}, encoders.view)
    parts = {target: model.float().eval().requires_grad_(False)}
    return TrainedModel(config, parts, TrainedOn(is_complete=False))  # the file does not say what the model has seen


def _read(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise ModelError(f"Expected a checkpoint file, found none at {path}: check the path.")
    state = load_pickled(path, inside="model_state_dict")
    if not any(key.startswith("gff.") for key in state):
        raise ModelError(f"Expected gff.* among the weights in {path}, got none: it is not an MST-CLIPIQA checkpoint.")
    return state


def _check_encoders(state: dict[str, Tensor], encoders: CLIPPair, path: Path) -> None:
    """Compare the frozen vision towers in the checkpoint with the given ones."""
    for stream in _STREAMS:
        prefix, tower = f"mstfe.{stream}.", getattr(encoders.mstfe, stream)
        if not isinstance(tower, VisionTower):
            raise ModelError(f"Expected CLIP image encoders, as {path} was trained on, got {encoders.source}.")
        own = tower.clip.state_dict()
        for key, value in state.items():
            if not key.startswith(prefix) or (name := key.removeprefix(prefix)) not in own:
                continue
            if value.shape != own[name].shape or not torch.equal(value.float(), own[name].float().cpu()):
                raise ModelError(
                    f"Expected the encoders of {path}, got different ones from {encoders.source} "
                    f"(they differ in {key}): give the pair that the checkpoint was trained on."
                )
