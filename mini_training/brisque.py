"""BRISQUE of the images that the card is about: what a classical measure of quality makes of them.

    python -m venv brisque-env
    brisque-env/bin/pip install 'brisque[opencv-python-headless]==0.2.0' 'numpy<2'
    brisque-env/bin/python -m mini_training.brisque --data AGIQA-3K --live LIVE-C -o work-out/brisque.json

It runs in an environment of its own, as the package needs an old numpy. Nothing else of this project is needed there.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np

from mini_training.data import open_image, read_rated, unseen


def main() -> None:
    """Write one number per image that the card's model never saw; lower is better."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="AGIQA-3K: data.csv and images/")
    parser.add_argument("--live", type=Path, required=True, help="LIVE in the Wild: data.csv and images/")
    parser.add_argument("-o", "--output", type=Path, required=True)
    args = parser.parse_args()
    from brisque import BRISQUE

    rated, measure = read_rated(args.data, args.live), BRISQUE(url=False)
    found: dict[str, float] = {}
    for folder, names in zip((args.data, args.live), unseen(rated), strict=True):
        found |= {name: float(measure.score(np.asarray(open_image(folder / "images" / name)))) for name in names}
    args.output.write_text(json.dumps(found, indent=0) + "\n")


if __name__ == "__main__":
    main()
