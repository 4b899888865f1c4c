"""Run the benchmarks and write docs/performance.md with its plot.

    python -m speed.report [--root AGIQA-3K] [--quick]

Each benchmark runs in a process of its own and leaves its JSON in docs/performance/. With --root, the adaptive one
runs as well, on that rated set. --quick runs them all at sizes that prove nothing but that they run.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

DOCS = Path(__file__).parent.parent / "docs"
QUICK = {"published": 16, "arithmetic": 16, "mini": 8, "memory": 40, "startup": 1, "cost": 4, "gpu": 2, "backends": 16}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, help="folder of AGIQA-3K, for the adaptive benchmark")
    parser.add_argument("--quick", action="store_true", help="tiny sizes: a test that everything runs")
    parser.add_argument("--only", nargs="+", choices=QUICK, help="run these and keep the other results")
    parser.add_argument("--docs", type=Path, default=DOCS, help="where performance.md goes")
    args = parser.parse_args()
    results = args.docs / "performance"
    for name in args.only or QUICK:
        more = ["--images", str(QUICK[name])] if args.quick else []
        start(name, results, more)
    if args.root:
        start("adaptive", results, ["--root", str(args.root)])
    found = {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in sorted(results.glob("*.json"))}
    draw(found, args.docs / "performance" / "rates.png")
    (args.docs / "performance.md").write_text(page(found), encoding="utf-8")


def start(name: str, results: Path, more: list[str]) -> None:
    """Run one benchmark, telling which."""
    print(f"{name} ...", file=sys.stderr, flush=True)
    output = str(results / f"{name}.json")
    subprocess.run(
        [sys.executable, "-m", f"benchmarks.{name}", *more, "-o", output], stdout=subprocess.DEVNULL, check=True
    )


def page(found: dict[str, Any]) -> str:
    """Return docs/performance.md."""
    machine = next(iter(found.values()))["machine"]
    lines = [
        "# Performance",
        "",
        f"Measured on {machine['processor']}, {machine['cores']} cores, {machine['capability']}, "
        f"torch {machine['torch']}, Python {machine['python']}, on {machine['date']}. Made by `speed/report.py`; "
        "each number comes from one script in `speed/`, whose first lines say how it is measured, and whose whole "
        "output is in `docs/performance/`. Rates depend on the machine; compare the ratios.",
        "",
        "![images a second](performance/rates.png)",
    ]
    for name, one in found.items():
        lines += ["", f"## {name}", "", one["claim"], "", *_table(one)]
    return "\n".join(lines) + "\n"


def _table(one: dict[str, Any]) -> list[str]:
    """Return a result's numbers as a table, its bars beside them, and its lists as tables of their own."""
    bars = one.get("bars", {})
    plain = {k: v for k, v in one.items() if k not in ("claim", "machine", "bars") and not isinstance(v, list | dict)}
    lines = ["| what | measured | bar |", "|---|---|---|"] if plain else []
    lines += [
        f"| {key.replace('_', ' ')} | {_number(value)} | {_number(bars.get(key, ''))} |" for key, value in plain.items()
    ]
    for key, value in one.items():
        if isinstance(value, dict) and key not in ("machine", "bars"):
            lines += [
                "",
                f"| {key.replace('_', ' ')} | |",
                "|---|---|",
                *(f"| {k} | {_number(v)} |" for k, v in _flat(value).items()),
            ]
        elif isinstance(value, list) and value:
            flat = [_flat(row) for row in value]
            lines += [
                "",
                f"{key.replace('_', ' ').capitalize()}:",
                "",
                f"| {' | '.join(flat[0])} |",
                "|---" * len(flat[0]) + "|",
            ]
            lines += [f"| {' | '.join(_number(v) for v in row.values())} |" for row in flat]
    return lines


def _flat(row: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return a row with the keys of inner objects joined to their own, and without its lists."""
    found: dict[str, Any] = {}
    for key, value in row.items():
        if isinstance(value, list):
            continue
        name = f"{prefix}{key.replace('_', ' ')}"
        found |= _flat(value, f"{name}: ") if isinstance(value, dict) else {name: value}
    return found


def _number(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def draw(found: dict[str, Any], path: Path) -> None:
    """Draw every rate in images a second as one chart of bars."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    rates = {
        f"{name}: {key.removesuffix('_per_second').replace('_', ' ')}": value
        for name, one in found.items()
        for key, value in one.items()
        if key.endswith("per_second") and isinstance(value, float)
    }
    towers = found.get("backends", {}).get("backends", [])
    rates |= {f"encoders alone: {row['backend']}": row["images_per_second"] for row in towers}
    figure, axes = plt.subplots(figsize=(8, 0.4 * len(rates) + 1.2), layout="constrained")
    bars = axes.barh(list(rates), list(rates.values()), color="#4477aa")
    axes.bar_label(bars, [f"{rate:,.0f}" if rate >= 100 else f"{rate:.1f}" for rate in rates.values()], padding=3)
    axes.set(xscale="log", xlabel="images a second (logarithmic)")
    axes.margins(x=0.1)
    axes.invert_yaxis()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120, metadata={"Software": None})
    plt.close(figure)


if __name__ == "__main__":
    main()
