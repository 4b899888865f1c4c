"""What the benchmarks claim: each value that has a bar, in words, and why it misses its bar if it does."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

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
    ("granularity", "auto_times_fine"): (
        "rate of `--granularity auto`, times that at fine granularity",
        "some images keep some or all of their crops",
    ),
    ("granularity_agreement", "auto_within"): ("share of images below fine whose scores are within the tolerance", ""),
    ("granularity_agreement", "auto_srcc_loss"): (
        "SRCC that `--granularity auto` loses on prompts that calibrated nothing",
        "scores change a little where crops are left out",
    ),
    ("gpu", "share_of_matmul"): (
        "share of a CUDA card's matrix rate that the paper's encoders reach",
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
    ("published", "largest_difference"): ("largest difference between scores in bf16 and in float32", ""),
    ("serve", "share_of_score"): (
        "images per second of `serve` under 64 clients, as a share of `score` on the same files",
        "clients, HTTP and the server share the cores with the encoders",
    ),
    ("serve", "memory_mb_per_minute"): (
        "memory that `serve` gains per minute, MB: the slope plus its standard error",
        "the slope is uncertain: memory goes up and down from turn to turn",
    ),
    ("serve", "errors"): ("requests to `serve` without a score", ""),
    ("serve", "scores_not_equal"): ("scores of `serve` that differ from those of `score`", ""),
    ("startup", "seconds"): ("seconds to score one image, start included", "most of it is the import of torch"),
    ("startup", "help_seconds"): ("seconds of `--help`", "most of it is the start of the interpreter"),
}
"""Section and value with a bar -> what it is in words, and why it misses its bar if it does."""
FIGURES: dict[tuple[str, str], Callable[[dict[str, Any]], Any]] = {
    ("decode", "JPEG files of 512 x 512 decoded per second, times the images that `mini` encodes"): (
        lambda one: _of_row(one["decoding"], {"format": "jpg", "side": 512}, "times_encoding")
    ),
    ("int8", "rate of the paper's encoders in int8, times that of `auto`, on a CPU where that is fp32"): (
        lambda one: _of_row(one["encoders"], {"encoders": "int8"}, "times_auto")
    ),
    ("mini", "JPEG files of 512 x 512 that `mini` scores per second, each with a prompt that did not occur before"): (
        lambda one: one.get("with_new_prompts_per_second")
    ),
    ("shared", "memory of each further process, such as an actor of `score-cluster`, MB"): (
        lambda one: one["mb_per_further_process"]
    ),
}
"""Section and what is measured -> the value in its result, None if it is not there; figures that have no bar."""


def _of_row(rows: list[dict[str, Any]], cells: dict[str, Any], key: str) -> Any:
    """Return a value of the row with these cells; None if there is no such row."""
    return next((row[key] for row in rows if cells.items() <= row.items()), None)


def is_met(key: str, value: float, bar: float) -> bool:
    """Return whether a value meets its bar."""
    return value <= bar if key in AT_MOST else value >= bar


def share_of_bar(key: str, value: float, bar: float) -> float:
    """Return a value as a share of its bar, or the inverse if it may not exceed the bar: from 1 on, the bar is met.

    Args:
        key: of the value.
        value, bar: above 0.
    """
    return bar / value if key in AT_MOST else value / bar
