"""Bar charts for docs/performance.md: claims beside their bars, and rates."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from speed.claims import CLAIMS, is_met, share_of_bar

MET, MISSED, RATE = "#228833", "#cc3311", "#4477aa"
_MOST_ON_LINE = 20  # times the smallest rate, on a linear scale


def draw_claims(found: dict[str, Any], path: Path) -> None:
    """Draw every value that has a bar above zero as a share of that bar: green if it is met, else red."""
    labels, shares, colours = [], [], []
    for name, one in found.items():
        for key, bar in one.get("bars", {}).items():
            if bar > 0 and one.get(key, 0) > 0:
                claim = CLAIMS.get((name, key), (f"{name}: {key.replace('_', ' ')}", ""))[0]
                labels.append(textwrap.fill(claim.replace("`", ""), 48))
                shares.append(share_of_bar(key, one[key], bar))
                colours.append(MET if is_met(key, one[key], bar) else MISSED)
    with _chart(path, len(labels), width=9) as axes:
        bars = axes.barh(range(len(labels)), shares, color=colours)
        axes.set_yticks(range(len(labels)), labels)
        axes.bar_label(bars, [f"{share:.2f}" for share in shares], padding=3)
        axes.axvline(1, color="black", linewidth=1)
        axes.set(xlabel="share of the bar; 1 or more is met")


def draw_rates(found: dict[str, Any], path: Path) -> None:
    """Draw every rate of a CPU in images per second."""
    rates = {
        f"{name}: {key.removesuffix('_per_second').replace('_', ' ')}": value
        for name, one in found.items()
        for key, value in one.items()
        if not one["machine"].get("gpu") and key.endswith("per_second") and isinstance(value, float)
    }
    towers = found.get("backends", {}).get("backends", [])
    rates |= {f"encoders alone: {row['backend']}": row["images_per_second"] for row in towers}
    with _chart(path, len(rates), width=8) as axes:
        bars = axes.barh(list(rates), list(rates.values()), color=RATE)
        axes.bar_label(bars, [f"{rate:,.0f}" if rate >= 100 else f"{rate:.1f}" for rate in rates.values()], padding=3)
        if rates and max(rates.values()) > _MOST_ON_LINE * min(rates.values()):
            axes.set(xscale="log", xlabel="images per second (logarithmic scale)")
        else:
            axes.set(xlabel="images per second")


@contextmanager
def _chart(path: Path, bars: int, width: float) -> Iterator[Any]:
    """Give axes for so many horizontal bars, and save what was drawn."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(width, 0.4 * bars + 1.2), layout="constrained")
    yield axes
    axes.margins(x=0.1)
    axes.invert_yaxis()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120, metadata={"Software": None})
    plt.close(figure)
