"""Prompts of valid and invalid Unicode, through the shipped text encoder, the heads and the row of the table."""

from __future__ import annotations

import json
import random
from functools import cache

import torch

from fuzz.harness import Case, Surface
from mst_clipiqa.features.encoded import Encoded
from mst_clipiqa.scoring.score_rows import to_row
from mst_clipiqa.scoring.scorer import Scorer
from mst_clipiqa.tables.cells import csv_cell, csv_line, from_csv_cell, plain, to_json

_PIECES = (
    *("a red ball", "on a table", "42", "=1+1", "@SUM(A1)", "'", '"', "\\", ",", ";", "\n", "\r\n", "\t", " ", "\0"),
    *("\ud800", "\udfff", "\udce9", "\ufffe", "\ufeff", "\u202e", "\u2028", "\x1b[31m", "é", "e\u0301", "\u0301" * 50),
    *("猫", "👩‍👩‍👧", "नमस्ते", "שלום", "ﷺ", "ß", "İ", "<|endoftext|>", "[UNK]", "[PAD]", "<s>", "{}", "%s", "<script>"),
)


@cache
def scorer() -> Scorer:
    """Return the shipped model."""
    return Scorer.load("mini", device="cpu", precision="fp32")


def make(dice: random.Random) -> Case:
    """Return one prompt, sometimes a long one, rarely a megabyte."""
    length = dice.choices((0, 1, 3, 10, 60, 2000, 100_000), (1, 5, 20, 40, 20, 2, 0.05))[0]
    if dice.random() < 0.3:
        text = "".join(chr(dice.choice((dice.randrange(128), dice.randrange(0x110000)))) for _ in range(length))
    else:
        text = dice.choice(("", " ", "-")).join(dice.choice(_PIECES) for _ in range(length))
    if dice.random() < 0.0005:
        text = (text or "x") * (1_000_000 // max(1, len(text)))
    return {"prompt": text.encode("utf-8", "surrogatepass")}


def feed(case: Case) -> None:
    """Score one image for the prompt, and write the row as each format would."""
    prompt = case["prompt"].decode("utf-8", "surrogatepass")
    model = scorer()
    features = torch.linspace(-1, 1, model.encoder.encoders.dim)
    (score,) = model.score_encoded([Encoded(features, -features, 8, 8)], [prompt])
    if score.status == "ok" and score.quality is None:
        raise TypeError(f"no score: {score}")
    row = to_row("a.png", prompt, score)
    back = json.loads(to_json(row))["prompt"]
    if back.encode("utf-16", "surrogatepass") != prompt.encode("utf-16", "surrogatepass"):  # two halves become one
        raise TypeError("JSON lines hold another prompt")
    csv_line([csv_cell(plain(cell)) for cell in row.values()])
    if prompt and from_csv_cell(csv_cell(prompt)) != prompt:
        raise TypeError("CSV holds another prompt")


SURFACE = Surface("prompts", make, feed)
