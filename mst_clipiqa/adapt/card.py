"""The card of an adapted model: where it comes from, what moved, and what the gate saw."""

from __future__ import annotations

from typing import Any

from mst_clipiqa.errors import counted
from mst_clipiqa.model_folder import ModelConfig
from mst_clipiqa.train.contamination import overstate
from mst_clipiqa.train.front_matter import front_matter


def adapted_card(config: ModelConfig, report: dict[str, Any]) -> str:
    """Return README.md of an adapted model folder; it begins with what the Hugging Face hub reads of a model.

    Args:
        config: the adapted model.
        report: what adapt.json holds.
    """
    images, gate = report["images"], report["gate"]
    ladders, labelled = gate["ladders"], len(report["labelled"])
    command = f"mst-clipiqa adapt --train {report['train']} --signal {report['signal']}"
    command += f" --labels {report['labels']:g}" if labelled else ""
    lines = [
        f"# {config.name}",
        "",
        f"`{report['from']}` (sha256 `{report['from_sha256'][:16]}`), adapted to other images "
        + (f"and to {labelled} ratings" if labelled else "without their ratings")
        + f" by `{command}`.",
        "",
        f"- Encoders: `{config.encoders.source}`, sha256 `{config.encoders.sha256[:16]}`, size {config.encoders.dim}"
        + (", changed by the adapter in this folder" if config.encoders.adapter else ""),
        f"- Adapted: {report['target']}, on {images['trained']} images; {images['held_out']} others were held out.",
        *_labelled(report),
        *_skipped(report),
        f"- Parameters that moved: {counted(len(report['moved']), 'tensor')}, listed in adapt.json.",
        f"- Time: {report['seconds']['encoding']} s to encode and {report['seconds']['adapting']} s to adapt, "
        f"on {counted(report['threads'], 'thread')}.",
        f"- **There are no intervals** for {' and '.join(report['without_intervals'])}: those of the first model "
        "no longer hold. Only `mst-clipiqa train` on rated images makes new ones.",
        "",
        "| held-out ladders | before | after |",
        "|---|---|---|",
        f"| all {ladders['ladders']}: pairs of rungs in the right order | {ladders['before']:.3f} "
        f"| {ladders['after']:.3f} |",
    ]
    lines += [f"| {kind} | {one[0]:.3f} | {one[1]:.3f} |" for kind, one in ladders["kinds"].items()]
    if gate["ratings"]:
        head = "| ratings that were not adapted to | images | without a score | SRCC before | SRCC after |"
        lines += ["", head, "|---|---|---|---|---|"]
        lines += [
            f"| {name} | {one['images']} | {one['unscored']} | {one['before']:.4f} | {one['after']:.4f} |"
            for name, one in gate["ratings"].items()
        ]
        if seen := report.get("contaminated"):
            lines += ["", f"**{seen.capitalize()}. These figures {overstate(seen)} both models.**"]
    for name, why in gate["unmeasured"].items():
        lines += ["", f"Agreement with the ratings of {name} was not measured: {why}."]
    if not report["check"]:
        lines += ["", "No ratings were given, so it is not known whether people agree with it more."]
    return front_matter(config.name, config.encoders.source, ()) + "\n".join(lines) + "\n"


def _skipped(report: dict[str, Any]) -> list[str]:
    """Return the line on images that could not be read; none without any."""
    count = len(report["skipped"])
    return [f"- Left out: {counted(count, 'image')} that cannot be read; adapt.json says why."] if count else []


def _labelled(report: dict[str, Any]) -> list[str]:
    """Return the line on images that trained with their ratings; none without any."""
    count = len(report["labelled"])
    if not count:
        return []
    return [
        f"- Labelled: {count} rated images of `{report['check']}` trained with their ratings and decided nothing. "
        "adapt.json names them; trained_on.json holds the hashes of these images and of their prompts."
    ]
