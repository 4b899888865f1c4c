"""The card of an adapted model: where it comes from, what moved, and what the gate saw."""

from __future__ import annotations

from typing import Any

from mst_clipiqa.model_folder import ModelConfig


def adapted_card(config: ModelConfig, report: dict[str, Any]) -> str:
    """Return README.md of an adapted model folder; ``report`` is what adapt.json holds."""
    images, gate = report["images"], report["gate"]
    ladders = gate["ladders"]
    lines = [
        f"# {config.name}",
        "",
        f"`{report['from']}` (sha256 `{report['from_sha256'][:16]}`), adapted to other images without their ratings by "
        f"`mst-clipiqa adapt --train {report['train']} --signal {report['signal']}`.",
        "",
        f"- Encoders: `{config.encoders.source}`, sha256 `{config.encoders.sha256[:16]}`, size {config.encoders.dim}"
        + (", changed by the adapter in this folder" if config.encoders.adapter else ""),
        f"- Adapted: {report['target']}, on {images['trained']} images; {images['held_out']} others were held out.",
        f"- Parameters that moved: {len(report['moved'])} tensors, listed in adapt.json.",
        f"- Time: {report['seconds']['encoding']} s to encode and {report['seconds']['adapting']} s to adapt, "
        f"on {report['threads']} threads.",
        "- **There are no intervals** for what was adapted: those of the first model do not hold any more. Calibrate "
        "them on ratings before you state any.",
        "",
        "| held-out ladders | before | after |",
        "|---|---|---|",
        f"| all {ladders['ladders']}: pairs of rungs in the right order | {ladders['before']:.3f} "
        f"| {ladders['after']:.3f} |",
    ]
    lines += [f"| {kind} | {one[0]:.3f} | {one[1]:.3f} |" for kind, one in ladders["kinds"].items()]
    if gate["ratings"]:
        lines += ["", "| ratings that trained nothing | images | SRCC before | SRCC after |", "|---|---|---|---|"]
        lines += [
            f"| {name} | {one['images']} | {one['before']:.4f} | {one['after']:.4f} |"
            for name, one in gate["ratings"].items()
        ]
    else:
        lines += ["", "No ratings were given, so it is not known whether people agree with it more."]
    return "\n".join(lines) + "\n"
