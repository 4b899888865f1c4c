"""MST-CLIPIQA inside pyiqa: ``register(ARCH_REGISTRY, DEFAULT_CONFIGS)``, then ``pyiqa.create_metric("mst_clipiqa")``.

pyiqa is not needed to import this file, and nothing of it is imported: its two registries are handed in.
"""

from __future__ import annotations

from collections.abc import MutableMapping
from typing import Any

from mst_clipiqa.integrations.metric import MSTClipIQAMetric


def register(
    arch_registry: Any,
    default_configs: MutableMapping[str, Any],
    name: str = "mst_clipiqa",
    model: str = "mini",
    target: str = "quality",
) -> str:
    """Let pyiqa create a metric of ours; returns its name.

    The class is ``MSTClipIQAMetric``. It computes gradients where pyiqa's ``as_loss=True`` asks for them, and what
    ``Scorer`` says otherwise.

    Args:
        arch_registry: ``pyiqa.utils.registry.ARCH_REGISTRY``.
        default_configs: ``pyiqa.default_model_configs.DEFAULT_CONFIGS``.
        name: by which pyiqa knows the metric.
        model: as ``Scorer.from_pretrained`` takes it; it is loaded when pyiqa creates the metric.
        target: the score to return.
    """
    if MSTClipIQAMetric.__name__ not in arch_registry:
        arch_registry.register(MSTClipIQAMetric)
    default_configs[name] = {
        "metric_opts": {"type": MSTClipIQAMetric.__name__, "model": model, "target": target},
        "metric_mode": MSTClipIQAMetric.metric_mode,
        "lower_better": MSTClipIQAMetric.lower_better,
        "score_range": None if model != "mini" else "0, 5",
    }
    return name
