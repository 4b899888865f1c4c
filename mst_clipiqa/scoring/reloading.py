"""How a scorer gets to another process: the name of its model and its options travel, and it is loaded again there.

pickle - LoadedFrom - load - the same hashes? - Scorer
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from mst_clipiqa.encoders.pair import EncoderPair
from mst_clipiqa.encoders.precision import Precision
from mst_clipiqa.errors import ModelError, UsageError
from mst_clipiqa.features.image_encoder import ImageEncoder
from mst_clipiqa.model_folder import TrainedModel
from mst_clipiqa.scoring.loading import ScoreOptions


class Loaded(Protocol):
    """What a scorer consists of."""

    model: TrainedModel
    encoder: ImageEncoder


@dataclass(frozen=True)
class LoadedFrom:
    """What a scorer was loaded from, and how, which is enough to load it again.

    Attributes:
        kind: its class, which has a method ``load``.
        model: its folder, or the name of a model without one.
        options: how it computes.
    """

    kind: Any
    model: str | Path
    options: ScoreOptions

    def but(self, **changes: Any) -> LoadedFrom:
        """Return a copy with other values of some options."""
        return dataclasses.replace(self, options=dataclasses.replace(self.options, **changes))

    def moved(self, pair: EncoderPair, was_on: str) -> LoadedFrom:
        """Return a copy for encoders that have moved; ``was_on`` is the type of their device before.

        On a device of another type "auto" might be another precision than the one that they have kept.
        """
        kept = {} if pair.device.type == was_on else {"precision": Precision.parse(pair.precision).format}
        return self.but(device=str(pair.device), **kept)


def reload(source: LoadedFrom, hashes: str) -> Loaded:
    """Load a scorer again; ModelError if its model has changed since."""
    scorer: Loaded = source.kind.load(source.model, source.options)
    if hashes != (found := scorer_sha256(scorer)):
        raise ModelError(
            f"Expected the model {hashes[:40]} at {source.model}, got {found[:40]}: copy the same folder there."
        )
    return scorer


def reduced(scorer: Loaded, source: LoadedFrom | None) -> tuple[Any, ...]:
    """Return how ``pickle`` loads a scorer again; UsageError if it was not loaded by name."""
    if source is None:
        raise UsageError(
            "Expected a scorer made by Scorer.load, the only kind that can be sent to another process, got one made "
            "from parts: save its model with save_pretrained and load that folder."
        )
    return reload, (source.but(batch_size=scorer.encoder.chosen_batch_size), scorer_sha256(scorer))


def scorer_sha256(scorer: Loaded) -> str:
    """Return the hashes of a scorer's model and encoders, and the calibration of its granularity, if it needs one."""
    parts = (scorer.model.sha256, scorer.encoder.encoders.sha256, scorer.encoder.policy.described)
    return "-".join(filter(None, parts))
