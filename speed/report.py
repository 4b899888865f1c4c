"""Run the benchmarks and write docs/performance.md with its plots.

    python -m speed.report [--root AGIQA-3K] [--quick]

Each benchmark runs in its own process and writes its JSON to docs/performance/. With --root,
granularities are timed on that set's images. --quick runs them all with tiny inputs, to test that they run.
"""

from __future__ import annotations

import argparse
import ast
import json
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

from speed.claims import AT_MOST, CLAIMS, FIGURES, is_met
from speed.plots import draw_claims, draw_rates

SPEED = Path(__file__).parent
DOCS = SPEED.parent / "docs"
QUICK = {
    **{"published": 16, "arithmetic": 16, "merge": 2, "mini": 8, "decode": 2, "memory": 40},
    **{"startup": 1, "cost": 4, "gpu": 2, "backends": 16, "granularity": 8, "serve": 2, "shared": 1},
    **{"precisions": 8, "int8": 2, "prompts": 2},
}
QUICK_MORE = {"serve": ["--seconds", "1", "--turns", "1", "--warm-up", "0", "--side", "64"]}
NOT_SHOWN = ("claim", "machine", "bars")
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
    parser.add_argument("--root", type=Path, help="folder of AGIQA-3K, for the rates of granularities")
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
    draw_claims(found, results / "claims.png")
    draw_rates(measured_here(found), results / "rates.png")
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


def measured_here(found: dict[str, Any]) -> dict[str, Any]:
    """Return the results from the page's machine: rates from two machines do not compare."""
    return {name: one for name, one in found.items() if not _elsewhere(one["machine"], _usual(found))}


def _usual(found: dict[str, Any]) -> dict[str, Any]:
    """Return the machine of most results, without a card: its latest record."""
    machines = [one["machine"] for one in found.values()]
    count = Counter(map(_kind, machines))
    return max(machines, key=lambda one: (not one.get("gpu"), count[_kind(one)], one["date"]))


def _kind(machine: dict[str, Any]) -> tuple[Any, ...]:
    """Return what rates depend on."""
    return machine["cpu"], machine["cores"], machine["capability"], machine.get("gpu")


def page(found: dict[str, Any]) -> str:
    """Return docs/performance.md."""
    machine = _usual(found)
    lines = [
        "# Performance",
        "",
        f"Measured on {machine['cpu']}, {machine['cores']} cores, {machine['capability']}, torch {machine['torch']}, "
        f"Python {machine['python']}; each section ends with its date, and with its machine if that was another. "
        "What was measured with `mini` before 26 November 2026 is of its earlier weights.",
        "",
        "Every section is the output of one script in `speed/`. The beginning of the script says how it measures; "
        "the complete output is in `docs/performance/`. `python -m speed.report` writes this page. Rates depend on the "
        "machine, so compare the ratios.",
        "",
        "## Claims",
        "",
        *_markdown(claims(found)).splitlines(),
        "",
        "The chart shows every value with a bar above zero as a share of that bar, or the inverse if the value may not "
        "exceed it. From 1 on, the bar is met.",
        "",
        "![measured values as shares of their bars](performance/claims.png)",
        "",
        "Rates on this CPU:",
        "",
        "![images per second](performance/rates.png)",
    ]
    for name, one in found.items():
        lines += ["", f"## {name}", "", f"{claim(name)} Script: `speed/{name}.py`.", "", *_tables(one)]
        lines += ["", f"Measured on {one['machine']['date']}{_elsewhere(one['machine'], machine)}."]
    return "\n".join(lines) + "\n"


def _elsewhere(here: dict[str, Any], usual: dict[str, Any]) -> str:
    """Return which machine a section was measured on, if it is not the page's."""
    if _kind(here) != _kind(usual) and not here.get("gpu"):
        return f" on {here['cores']} cores of {here['cpu']} with {here['capability']}"
    if not (card := here.get("gpu")) or card == usual.get("gpu"):
        return ""
    return f" on {card}, {here['cores']} cores of {here['cpu']}, torch {here['torch']}, Python {here['python']}"


def claims(found: dict[str, Any]) -> list[tuple[str, ...]]:
    """Return a table of every value with a bar, whether it is met and if not, why; then of figures without one."""
    rows: list[tuple[str, ...]] = [("claim", "measured", "bar", "why it is missed", "section", "date")]
    for name, one in found.items():
        for key in one.get("bars", {}):
            if key in one:
                verdict = _verdict(key, one[key], one["bars"])
                what, why = CLAIMS.get((name, key), (_label(key), ""))
                reason = why if "missed" in verdict else ""
                date = one["machine"].get("date", "")
                rows.append((what, _cell(one[key]), verdict, reason, f"[{name}](#{name})", date))
    for (name, what), value_of in FIGURES.items():
        one = found.get(name, {"measured": False})
        if one.get("measured", True) and (value := value_of(one)) is not None:
            rows.append((what, _cell(value), "none", "", f"[{name}](#{name})", one["machine"].get("date", "")))
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
    met = "met" if is_met(key, value, bars[key]) else "**missed**"
    return f"{'at most' if key in AT_MOST else 'at least'} {_cell(bars[key])}: {met}"


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


if __name__ == "__main__":
    main()
