"""Scores generated images: how good they look, and how well they show their prompt.

The pipeline, image and prompt to two numbers (arXiv 2606.16799)::

    images/decode.py       path, bytes, array ........ -> RGB image
    model/preprocess.py    RGB image ................. -> uint8 views of one size
    model/mstfe.py         views, two frozen encoders  -> f_c, f_f       (coarse and fine features)
    model/gff.py           f_c, f_f .................. -> g, z           (gate, fused feature)
    model/heads.py         z, prompt tokens .......... -> q in 1..5      (template head or prompt head)
    scoring/scorer.py      q, the target's range ..... -> Score          (in the raters' own units)

    import mst_clipiqa
    scorer = mst_clipiqa.Scorer.load("mini")
    score = scorer("image.png", prompt="a red ball on a table")
    score.quality, score.correspondence

Nothing heavy is imported until one of the names below is used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from mst_clipiqa._version import __version__
from mst_clipiqa.errors import DataError, ImageError, ModelError, MstClipiqaError, PromptError, UsageError

if TYPE_CHECKING:
    from mst_clipiqa.encoders import load_encoders
    from mst_clipiqa.integrations.metric import create_metric, list_models
    from mst_clipiqa.model.mst_clipiqa import MSTCLIPIQA
    from mst_clipiqa.scoring.score import Score, ScoreRequest
    from mst_clipiqa.scoring.scorer import Scorer

__all__ = [
    "MSTCLIPIQA",
    "DataError",
    "ImageError",
    "ModelError",
    "MstClipiqaError",
    "PromptError",
    "Score",
    "ScoreRequest",
    "Scorer",
    "UsageError",
    "__version__",
    "create_metric",
    "list_models",
    "load_encoders",
]

_HOME = {
    "MSTCLIPIQA": "model.mst_clipiqa",
    "Score": "scoring.score",
    "ScoreRequest": "scoring.score",
    "Scorer": "scoring.scorer",
    "create_metric": "integrations.metric",
    "list_models": "integrations.metric",
    "load_encoders": "encoders",
}


def __getattr__(name: str) -> object:
    """Import a public name from the module that defines it, on first use."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value: object = getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """List the public names, imported or not."""
    return sorted(__all__)
