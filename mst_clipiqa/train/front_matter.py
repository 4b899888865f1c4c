"""The YAML on top of a model card: what the Hugging Face hub reads of a model.

Its fields are those of ``huggingface_hub.ModelCardData``, which also writes them.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mst_clipiqa.encoders import named_encoders
from mst_clipiqa.encoders.hub import HUB_ID

LIBRARY = "mst-clipiqa"
TAGS = ("image-quality-assessment", "text-to-image-evaluation", "ai-generated-images", "clip")
TASK = "image-quality-assessment"
CORRELATIONS = ("srcc", "plcc")


@dataclass(frozen=True)
class MeasuredResult:
    """How well a model agrees with human ratings of one target on one set.

    Attributes:
        target: "quality", for example.
        data: name of the rated set.
        part: "test", for example.
        protocol: how the set was split, in words.
        srcc, plcc: correlations with the ratings, -1..1; nan if undefined.
    """

    target: str
    data: str
    part: str
    protocol: str
    srcc: float
    plcc: float


def front_matter(
    name: str,
    encoders: str,
    data: Sequence[str],
    measured: Sequence[MeasuredResult] = (),
    *,
    licence: str = "unknown",
    metrics: Sequence[str] = CORRELATIONS,
) -> str:
    """Return the YAML that a model card begins with, between lines of three hyphens.

    Args:
        name: of the model.
        encoders: hub ids of the encoders, separated by a comma, or a short name; other names and folders are left out.
        data: names of the sets that it was trained on.
        measured: figures, which become the ``model-index``; undefined ones are left out.
        licence: as the hub spells it, such as "apache-2.0"; whoever publishes the model decides.
        metrics: by which the model is measured, as the hub spells them.

    Example:
        >>> "license: unknown" in front_matter("mine", "openai", ["AGIQA-3K"])
        True
    """
    from huggingface_hub import EvalResult, ModelCardData

    named = named_encoders(encoders)
    results = [
        EvalResult(
            task_type=TASK,
            task_name="Image quality assessment",
            dataset_type=re.sub(r"\W+", "-", one.data.lower()),
            dataset_name=one.data,
            dataset_split=one.part,
            dataset_args={"protocol": one.protocol},
            metric_type=metric,
            metric_name=f"{metric.upper()} of {one.target}",
            metric_value=round(value, 4),
        )
        for one in measured
        for metric, value in (("srcc", one.srcc), ("plcc", one.plcc))
        if math.isfinite(value)
    ]
    fields = ModelCardData(
        license=licence,
        library_name=LIBRARY,
        tags=list(TAGS),
        datasets=list(dict.fromkeys(data)) or None,
        metrics=list(metrics),
        base_model=[part for part in named if HUB_ID.fullmatch(part) and not Path(part).exists()] or None,
        model_name=name if results else None,
        eval_results=results or None,
    )
    return f"---\n{fields.to_yaml()}\n---\n"
