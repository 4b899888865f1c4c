"""What a new prompt costs the text encoders of ``mini`` and the coarse CLIP: one on one core, many on all cores.

    python -m speed.prompts

Alone, each prompt is encoded in a call of its own, on one core, as when images come one by one; together, all are given
at once, as for a table, and shared among the cores. CLIP's text encoder has its real size and random weights, which
cost what trained ones cost.
"""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

from mst_clipiqa.encoders.pair import EncoderPair
from mst_clipiqa.features.prompt_encoder import PromptEncoder
from mst_clipiqa.scoring.scorer import Scorer
from speed.machine import median_seconds, run
from speed.random_pair import random_pair

WORDS = (4, 8, 16)
TIMES = 5
_new = itertools.count()


def measure(prompts: int, folder: Path) -> dict[str, Any]:
    """Return milliseconds per prompt of each encoder and length; ``folder`` is not used."""
    pairs = {"mini": Scorer.load("mini").encoder.encoders, "CLIP": random_pair()}
    return {"prompts": [row(name, pair, words, prompts) for name, pair in pairs.items() for words in WORDS]}


def row(name: str, pair: EncoderPair, words: int, count: int) -> dict[str, Any]:
    """Return what prompts of so many words cost."""
    encoder = PromptEncoder(pair)
    tokens = len(encoder.encode(new(1, words))[0].tokens)
    alone = median_seconds(lambda: [encoder.encode([one]) for one in new(count, words)], TIMES)
    together = median_seconds(lambda: encoder.encode(new(count, words)), TIMES)
    milliseconds = {"alone_milliseconds": 1000 / count * alone, "together_milliseconds": 1000 / count * together}
    return {"encoder": name, "tokens": tokens, **milliseconds, "times_faster_together": alone / together}


def new(count: int, words: int) -> list[str]:
    """Return prompts that did not occur before."""
    texts = [f"{next(_new)} " + "a red fox on a hill " * (words // 6 + 1) for _ in range(count)]
    return [" ".join(text.split()[:words]) for text in texts]


if __name__ == "__main__":
    run(__doc__ or "", measure, images=32)
