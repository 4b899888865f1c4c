"""What many images cost, from rates that you have measured: hours, machines, storage, money, and the bottleneck.

No rate has a default: measure each on your own machines and storage, as docs/scale.md says.

    python -m speed.scale --images 1e9 --machines 8 --score-rate 400 --decode-rate 90 --cores 16 \\
        --list-rate 20000 --image-kb 150 --network-mbs 1000 --write-rate 50000 --row-bytes 60 --price 2.5
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Measured:
    """Measured rates, per machine by default.

    Attributes:
        images: to score.
        machines: at work at once.
        score_rate: images/s that the arithmetic of all actors of a machine does, features to be computed.
        decode_rate: images/s that one core opens and resizes.
        cores: for that, a machine.
        list_rate: names/s that the one machine that deals lists.
        image_kb: mean size of a file, kB.
        network_mbs: MB/s from the storage to a machine.
        write_rate: rows/s that are committed.
        row_bytes: of a row in the parts.
        price: of a machine an hour.
    """

    images: float
    machines: float
    score_rate: float
    decode_rate: float
    cores: float
    list_rate: float
    image_kb: float
    network_mbs: float
    write_rate: float
    row_bytes: float
    price: float


def stages(m: Measured) -> dict[str, float]:
    """Return how many images per second each stage can process, on all machines together."""
    return {
        "listing": m.list_rate,
        "network": m.machines * m.network_mbs * 1000 / m.image_kb,
        "decode": m.machines * m.cores * m.decode_rate,
        "arithmetic": m.machines * m.score_rate,
        "writing": m.machines * m.write_rate,
    }


def costs(m: Measured) -> dict[str, object]:
    """Return hours, money, storage and where the bottleneck is; stages overlap, so the slowest one counts."""
    rates = stages(m)
    slowest = min(rates, key=lambda name: rates[name])
    hours = m.images / rates[slowest] / 3600
    moves = {name: round(rate / (rates[slowest] / m.machines), 1) for name, rate in rates.items() if name == "listing"}
    return {
        "hours": round(hours, 2),
        "machine_hours": round(hours * m.machines, 1),
        "money": round(hours * m.machines * m.price, 2),
        "rows_gb": round(m.images * m.row_bytes / 1e9, 2),
        "read_tb": round(m.images * m.image_kb / 1e9, 2),
        "bottleneck": slowest,
        "images_per_s": {name: round(rate, 1) for name, rate in rates.items()},
        "machines_until_listing_is_the_bottleneck": moves["listing"] if slowest != "listing" else None,
    }


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name in Measured.__dataclass_fields__:
        parser.add_argument(f"--{name.replace('_', '-')}", type=float, required=True)
    print(json.dumps(costs(Measured(**vars(parser.parse_args(argv)))), indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
