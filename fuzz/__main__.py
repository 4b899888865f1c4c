"""Run the fuzzers: one line of JSON per surface on stdout; exit code 1 if anything broke or hung.

python -m fuzz images --count 100000
python -m fuzz all --count 1000 --seed 7
python -m fuzz --replay fuzz/found/images-0123456789ab.json
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from fuzz.harness import Surface, loaded, run

SURFACES = ("images", "metadata", "prompts", "tables", "models", "http")
FOUND = Path(__file__).parent / "found"


def surface(name: str) -> Surface:
    """Return one surface by name; only now are its packages imported."""
    found: Surface = importlib.import_module(f"fuzz.{name}").SURFACE
    return found


def main(argv: Sequence[str] | None = None) -> int:
    """Run the surfaces in the arguments; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m fuzz", description=__doc__.splitlines()[0])
    parser.add_argument("surface", nargs="?", default="all", choices=["all", *SURFACES])
    parser.add_argument("--count", type=int, default=1000, help="cases per surface")
    parser.add_argument("--seed", type=int, default=0, help="seed of the first case")
    parser.add_argument("--replay", type=Path, help="run one kept case again")
    args = parser.parse_args(argv)
    os.environ["HF_HUB_OFFLINE"] = "1"
    if args.replay:
        surface(args.replay.name.split("-")[0]).feed(loaded(args.replay.read_text()))
        return 0
    broken = 0
    for name in SURFACES if args.surface == "all" else [args.surface]:
        counts = run(surface(name), args.count, args.seed, FOUND)
        print(counts.line(), flush=True)
        broken += counts.tracebacks + counts.hangs
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
