"""What is above the frozen towers learns on, with ladders of distortion and pure noise.

Towers that see ladders agree less with people on new images than towers that do not, so they are trained without. Then
they are frozen, and what they make of every image is computed once, by the code that the product runs.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from mini_training.fit import Known, Sets, fit
from mini_training.learner import Learner
from mini_training.plan import COMPUTED, FROZEN, Plan
from mini_training.prepare import Maps, Prepared, tensor
from mst_clipiqa.encoders.mini.fused import FusedTower

_NAMES = ("rated", "ladders", "photographs", "noises", "scenes")


def settle(towers: Learner, sets: Sets, known: Known, plan: Plan, checkpoint: Path) -> tuple[Learner, Sets]:
    """Return a learner with the same towers, trained on by ``plan``, and the sets with numbers in place of maps."""
    described = replace(sets, maps=_described(towers, sets.maps, checkpoint.with_suffix(".npz")))

    def begin() -> Learner:
        learner = Learner(plan)
        learner.load_state_dict(towers.state_dict())
        for part in (learner.coarse.trunk, learner.fine.trunk, learner.text):
            part.requires_grad_(False)
        return learner

    return fit(described, known, begin, checkpoint), described


@torch.inference_mode()
def _described(learner: Learner, maps: Prepared, kept: Path) -> Prepared:
    """Return what the towers make of every image: standardised numbers, averaged over views; nothing is mirrored.

    They are read from the file ``kept`` if it exists, and else written to it.
    """
    if not kept.is_file():
        coarse, fine = (FusedTower(stream.shipped(), COMPUTED) for stream in (learner.coarse, learner.fine))
        found: dict[str, np.ndarray] = {}
        for name in _NAMES:
            images: Maps = getattr(maps, name)
            whole = [coarse.tower.standardise(_numbers(coarse, one[None])) for one in images.coarse]
            crops = [fine.tower.standardise(_numbers(fine, some)).mean(0, keepdim=True) for some in images.fine]
            found |= {f"{name}.coarse": torch.cat(whole).numpy(), f"{name}.fine": torch.stack(crops).numpy()}
        np.savez(part := kept.with_suffix(".part.npz"), allow_pickle=False, **found)
        part.replace(kept)
    with np.load(kept) as read:
        of = {name: Maps(read[f"{name}.coarse"], read[f"{name}.fine"]) for name in _NAMES}
    return Prepared(**of, mirrored=of["rated"], bases=maps.bases, kinds=maps.kinds)


def _numbers(tower: FusedTower, maps: np.ndarray) -> Tensor:
    """Return pooled numbers (n, inputs) of the maps of some views (n, height, width, channels)."""
    return tower.numbers_after(tensor(maps).permute(0, 3, 1, 2), FROZEN)
