"""Run the benchmarks and write docs/performance.md with its plot.

    python -m speed.report [--root AGIQA-3K] [--quick]

Each benchmark runs in its own process and writes its JSON to docs/performance/. With --root, the one of granularities
measures agreement as well, on that rated set. --quick runs them all with tiny inputs, to test that they run.
"""

from __future__ import annotations

import argparse
import ast
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

SPEED = Path(__file__).parent
DOCS = SPEED.parent / "docs"
QUICK = {
    **{"published": 16, "arithmetic": 16, "merge": 2, "mini": 8, "decode": 2, "memory": 40},
    **{"startup": 1, "cost": 4, "gpu": 2, "backends": 16, "granularity": 8, "serve": 2, "shared": 1},
    **{"precisions": 8, "int8": 2},
}
QUICK_MORE = {"serve": ["--seconds", "1", "--turns", "1", "--warm-up", "0", "--side", "64"]}
NOT_SHOWN = ("claim", "machine", "bars")
AT_MOST = {
    "ratio",
    "seconds",
    "help_seconds",
    "largest_difference",
    "auto_srcc_loss",
    "memory_mb_per_minute",
    "errors",
    "scores_not_equal",
}  # values that may not exceed their bar; the others must reach it
CLAIMS = {
    ("arithmetic", "share"): (
        "share of the machine's matrix rate that the paper's encoders reach",
        "norms, softmax and activations are computed in float32 beside the products",
    ),
    ("granularity", "auto_images_per_second"): (
        "JPEG files of 512 x 512 per second with `--granularity auto`",
        "some images keep some or all of their crops",
    ),
    ("granularity", "auto_times_fine"): ("the same, times the rate at fine granularity", "the same reason"),
    ("granularity", "auto_within"): ("share of images below fine whose scores are within the tolerance", ""),
    ("granularity", "auto_srcc_loss"): (
        "SRCC that `--granularity auto` loses on prompts that calibrated nothing",
        "correspondence loses it: the coarse view alone costs it more than quality",
    ),
    ("gpu", "share_of_matmul"): (
        "the same on a CUDA card",
        "norms, activations and sums between the products are passes over the card's memory",
    ),
    ("gpu", "share_of_slower"): (
        "files to scores on a card, as a share of the slower of decoding and encoding",
        "one process opens, shrinks and cuts the images, feeds the card and scores",
    ),
    ("memory", "ratio"): ("memory for 20,000 images, times that for 500", ""),
    ("merge", "times_whole_at_half_the_tokens"): ("rate of the paper's encoders with half of their tokens", ""),
    ("mini", "images_per_second"): (
        "JPEG files of 512 x 512 that `mini` scores per second",
        "its encoders take most of the time, four native crops more than the whole image",
    ),
    ("published", "times_faster"): (
        "files to scores with the paper's encoders, times the published procedure",
        "it cannot exceed by much what bf16 gains over float32 on the machine",
    ),
    ("published", "share_of_products"): (
        "rate over the published procedure, divided by what bf16 gains in a matrix product here",
        "",
    ),
    ("published", "srcc_with_fp32"): (
        "SRCC of the scores in bf16 with those in float32",
        "some of the images are near copies of others, so their scores lie side by side and change places",
    ),
    ("published", "largest_difference"): ("largest difference between these scores", ""),
    ("serve", "share_of_score"): (
        "images per second of `serve` under 64 clients, as a share of `score` on the same files",
        "clients, HTTP and the server share the cores with the encoders",
    ),
    ("serve", "memory_mb_per_minute"): (
        "memory that `serve` gains per minute, MB",
        "load comes and goes in this run; under steady load memory levels off",
    ),
    ("serve", "errors"): ("requests to `serve` without a score", ""),
    ("serve", "scores_not_equal"): ("scores of `serve` that differ from those of `score`", ""),
    ("startup", "seconds"): ("seconds to score one image, start included", "most of it is the import of torch"),
    ("startup", "help_seconds"): ("seconds of `--help`", "most of it is the start of the interpreter"),
}
"""Of a section and a value with a bar: what it is, and why its bar is missed where it is."""
LABELS = {
    "srcc": "SRCC",
    "gflop": "GFLOP",
    "gflops": "GFLOP/s",
    "mb": "MB",
    "cpu": "CPU",
    "tflops": "TFLOP/s",
    "gb": "GB",
    "matmul": "matrix rate",
    "times fine": "times the rate of fine",
    "times auto": "times the rate of auto",
    "difference 95": "95 % differ by at most, share of the scale",
    "sd": "standard deviation",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, help="folder of AGIQA-3K, for the agreement of granularities")
    parser.add_argument("--quick", action="store_true", help="tiny inputs, to test that everything runs")
    parser.add_argument(
        "--only",
        nargs="*",
        choices=QUICK,
        help="run only these and keep the other results; with no names, only write the page",
    )
    parser.add_argument("--docs", type=Path, default=DOCS, help="folder for performance.md")
    args = parser.parse_args()
    results = args.docs / "performance"
    for name in QUICK if args.only is None else args.only:
        more = ["--images", str(QUICK[name]), *QUICK_MORE.get(name, [])] if args.quick else []
        more += ["--root", str(args.root)] if args.root and name == "granularity" else []
        start(name, results, more)
    found = load(results)
    draw(found, results / "rates.png")
    (args.docs / "performance.md").write_text(page(found), encoding="utf-8")


def start(name: str, results: Path, more: list[str]) -> None:
    """Run one benchmark and print its name."""
    print(f"{name} ...", file=sys.stderr, flush=True)
    output = str(results / f"{name}.json")
    subprocess.run([sys.executable, "-m", f"speed.{name}", *more, "-o", output], stdout=subprocess.DEVNULL, check=True)


def load(results: Path) -> dict[str, Any]:
    """Return every result of a script of this folder, by name; other pages keep theirs in the same place.

    Of a script that says that it measured nothing, figures are left out: they only show that it runs.
    """
    files = [path for path in sorted(results.glob("*.json")) if (SPEED / f"{path.stem}.py").is_file()]
    found = {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in files}
    kept = ("measured", "note", "machine")
    return {
        name: one if one.get("measured", True) else {key: one[key] for key in kept if key in one}
        for name, one in found.items()
    }


def page(found: dict[str, Any]) -> str:
    """Return docs/performance.md."""
    machine = next(iter(found.values()))["machine"]
    lines = [
        "# Performance",
        "",
        f"Measured on {machine['cpu']}, {machine['cores']} cores, {machine['capability']}, torch {machine['torch']}, "
        f"Python {machine['python']}; each section ends with its date. What was measured with `mini` "
        "before 26 November 2026 is of its earlier weights.",
        "",
        "Every section is the output of one script in `speed/`. The beginning of the script says how it measures; "
        "the complete output is in `docs/performance/`. `python -m speed.report` writes this page. Rates depend on the "
        "machine, so compare the ratios.",
        "",
        "![images per second](performance/rates.png)",
    ]
    lines += ["", "## Claims", "", *_markdown(claims(found)).splitlines()]
    for name, one in found.items():
        lines += ["", f"## {name}", "", f"{claim(name)} Script: `speed/{name}.py`.", "", *_tables(one)]
        lines += ["", f"Measured on {one['machine']['date']}{_elsewhere(one['machine'], machine)}."]
    return "\n".join(lines) + "\n"


def _elsewhere(here: dict[str, Any], usual: dict[str, Any]) -> str:
    """Return which machine a section was measured on, if it is not the page's."""
    if here["capability"] != usual["capability"] and not here.get("gpu"):
        return f" on {here['cores']} cores of {here['cpu']} with {here['capability']}"
    if not (card := here.get("gpu")) or card == usual.get("gpu"):
        return ""
    return f" on {card}, {here['cores']} cores of {here['cpu']}, torch {here['torch']}, Python {here['python']}"


def claims(found: dict[str, Any]) -> list[tuple[str, ...]]:
    """Return a table of every value that has a bar: what it is, the bar, whether it is met, and if not, why."""
    rows: list[tuple[str, ...]] = [("claim", "measured", "bar", "why it is missed", "section", "date")]
    for name, one in found.items():
        for key in one.get("bars", {}):
            if key in one:
                verdict = _verdict(key, one[key], one["bars"])
                what, why = CLAIMS.get((name, key), (_label(key), ""))
                reason = why if "missed" in verdict else ""
                date = one["machine"].get("date", "")
                rows.append((what, _cell(one[key]), verdict, reason, f"[{name}](#{name})", date))
    return rows


def claim(name: str) -> str:
    """Return what a script measures: the first line of its docstring."""
    tree = ast.parse((SPEED / f"{name}.py").read_text(encoding="utf-8"))
    return (ast.get_docstring(tree) or "").splitlines()[0].replace("``", "`")


def _tables(one: dict[str, Any]) -> list[str]:
    """Return a result's numbers as a table with their bars, and its lists and objects as tables of their own."""
    bars = one.get("bars", {})
    shown = {key: value for key, value in one.items() if key not in NOT_SHOWN}
    plain = {key: value for key, value in shown.items() if not (value is None or isinstance(value, list | dict))}
    rows = [(_label(key), _cell(value), _verdict(key, value, bars)) for key, value in plain.items()]
    tables: list[list[tuple[str, ...]]]
    if any(bar for *_, bar in rows):
        tables = [[("what", "measured", "bar"), *rows]]
    else:
        tables = [[("what", "measured"), *(row[:2] for row in rows)]] if rows else []
    for key, value in shown.items():
        if isinstance(value, dict):
            tables.append([(_label(key), ""), *((name, _cell(v)) for name, v in _flat(value).items())])
        elif isinstance(value, list) and value and not isinstance(value[0], dict):
            tables.append([(_label(key),), (", ".join(map(_cell, value)),)])
        elif isinstance(value, list) and value:
            flat = [_flat(row) for row in value]
            columns = tuple(dict.fromkeys(name for row in flat for name in row))
            tables.append([columns, *(tuple(_cell(row.get(name)) for name in columns) for row in flat)])
    return "\n\n".join(_markdown(table) for table in tables).splitlines()


def _markdown(rows: list[tuple[str, ...]]) -> str:
    lines = [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join([lines[0], "|---" * len(rows[0]) + "|", *lines[1:]])


def _verdict(key: str, value: Any, bars: dict[str, float]) -> str:
    """Return a value's bar, and whether it is met."""
    if key not in bars:
        return ""
    most = key in AT_MOST
    met = value <= bars[key] if most else value >= bars[key]
    return f"{'at most' if most else 'at least'} {_cell(bars[key])}: {'met' if met else '**missed**'}"


def _flat(row: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return a row with the keys of inner objects joined to their own, and without its lists."""
    found: dict[str, Any] = {}
    for key, value in row.items():
        if isinstance(value, list):
            continue
        name = f"{prefix}{_label(key)}"
        inner = prefix if key == "targets" else f"{name}: "
        found |= _flat(value, inner) if isinstance(value, dict) else {name: value}
    return found


def _label(key: str) -> str:
    """Return a key as people read it: "srcc_full" -> "SRCC full"."""
    words = " ".join(LABELS.get(word, word) for word in key.split("_"))
    return LABELS.get(words, words)


def _cell(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return {None: "", True: "yes", False: "no"}[value]
    if isinstance(value, float):
        return f"{value:,.0f}" if value >= 10_000 else f"{value:.4g}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def draw(found: dict[str, Any], path: Path) -> None:
    """Draw every rate of a CPU in images per second as one bar chart."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    rates = {
        f"{name}: {key.removesuffix('_per_second').replace('_', ' ')}": value
        for name, one in found.items()
        for key, value in one.items()
        if not one["machine"].get("gpu") and key.endswith("per_second") and isinstance(value, float)
    }
    towers = found.get("backends", {}).get("backends", [])
    rates |= {f"encoders alone: {row['backend']}": row["images_per_second"] for row in towers}
    figure, axes = plt.subplots(figsize=(8, 0.4 * len(rates) + 1.2), layout="constrained")
    bars = axes.barh(list(rates), list(rates.values()), color="#4477aa")
    axes.bar_label(bars, [f"{rate:,.0f}" if rate >= 100 else f"{rate:.1f}" for rate in rates.values()], padding=3)
    axes.set(xscale="log", xlabel="images per second (logarithmic scale)")
    axes.margins(x=0.1)
    axes.invert_yaxis()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120, metadata={"Software": None})
    plt.close(figure)


if __name__ == "__main__":
    main()
