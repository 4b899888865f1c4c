"""BRISQUE of every rated image, for the card: what a classical measure of quality makes of the same images.

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

from mini_training.data import open_image, read_rated


def main() -> None:
    """Write one number per image, lower is better: AGIQA-3K's images, then LIVE in the Wild's."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="AGIQA-3K: data.csv and images/")
    parser.add_argument("--live", type=Path, required=True, help="LIVE in the Wild: data.csv and images/")
    parser.add_argument("-o", "--output", type=Path, required=True)
    args = parser.parse_args()
    from brisque import BRISQUE

    rated, measure = read_rated(args.data, args.live), BRISQUE(url=False)
    files = [args.data / "images" / name for name in rated.names] + [
        args.live / "images" / name for name in rated.photos
    ]
    args.output.write_text(json.dumps([float(measure.score(np.asarray(open_image(file)))) for file in files]) + "\n")


if __name__ == "__main__":
    main()
