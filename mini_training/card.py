"""The card of the embedded model, written from what was measured."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mst_clipiqa.train.front_matter import MeasuredResult, front_matter

TEXT = Path(__file__).parent / "card.md"


def card(found: dict[str, Any], familiarity: dict[str, Any]) -> str:
    """Return README.md for the folder: the text of ``card.md`` with the figures and tables put in.

    On top is what the Hugging Face hub reads of a model.
    """
    text = _front_matter(found) + TEXT.read_text(encoding="utf-8")
    development, robust = found["development"], found["robust"]
    values = {
        "agreement": _agreement(development),
        "within": _within(found),
        "photographs": _photographs(found),
        "kodak": _kodak(robust["kodak"]),
        "noise": f"{max(robust['noise']):.2f}",
        "fall": _interval(development["prompt_matters"], "fall"),
        "interval_q": f"{familiarity['widening']['quality']['interval']:.2f}",
        "interval_c": f"{familiarity['widening']['correspondence']['interval']:.2f}",
        "widest": _widest(familiarity),
        "unfamiliar_photographs": f"{100 * familiarity['unfamiliar_share']['development']['LIVE in the Wild']:.0f} %",
        "reliability": _reliability(familiarity),
        "bf16_mean": f"{development['bf16']['mean']:.3f}",
        "bf16_max": f"{development['bf16']['max']:.2f}",
        "int8": _int8(found.get("int8")),
        "looks": str(found["looks"]),
        "megabytes": f"{found['megabytes']:.0f}",
        "brisque": _brisque(found.get("brisque")),
    }
    for name, value in values.items():
        text = text.replace("{{" + name + "}}", value)
    return text


def _front_matter(found: dict[str, Any]) -> str:
    protocol = "48 of 240 prompts, never trained on; by a model trained as mini was, on 192 of the others"
    measured = [
        MeasuredResult(target, "AGIQA-3K", "development", protocol, of["srcc"]["value"], of["plcc"])
        for target in ("quality", "correspondence")
        for of in [found["development"][target]]
    ]
    data = ["AGIQA-3K", "LIVE In the Wild Image Quality Challenge"]
    return front_matter("mini", "sentence-transformers/all-MiniLM-L6-v2", data, measured, licence="apache-2.0")


def _widest(familiarity: dict[str, Any]) -> str:
    """Return in words how wide an interval gets at most."""
    times = max(float(one["widest"]) for one in familiarity["widening"].values())
    return "as wide" if times == 1 else f"up to {times:.1f} times as wide"


def _reliability(familiarity: dict[str, Any]) -> str:
    lines = [
        "| images | n | unfamiliar | quality: covered | `compare`: stated, right | correspondence: covered"
        " | `compare`: stated, right |",
        "|---|---|---|---|---|---|---|",
    ]
    of, unfamiliar = familiarity["intervals"], familiarity["unfamiliar_share"]
    for name, quality in of["quality"].items():
        share = unfamiliar[name]["left out"] if name in unfamiliar else unfamiliar["development"]["new prompts"]
        cells = " | ".join(
            f"{t['covered']:.3f} | {t['stated']:.3f}, {t['right']:.3f}" for t in (quality, of["correspondence"][name])
        )
        lines.append(f"| {name} | {quality['images']} | {share:.3f} | {cells} |")
    return "\n".join(lines)


def _interval(of: dict[str, float], key: str) -> str:
    return f"{of[key]:.3f} ({of['low']:.3f} to {of['high']:.3f})"


def _agreement(found: dict[str, Any]) -> str:
    lines = ["| | quality | correspondence |", "|---|---|---|"]
    q, c = found["quality"], found["correspondence"]
    rows: list[tuple[str, Callable[[dict[str, Any]], str]]] = [
        ("images", lambda t: str(t["n"])),
        ("SRCC", lambda t: _interval(t["srcc"], "value")),
        ("SRCC of the generator's mean", lambda t: f"{t['above_generator_mean']['a']:.3f}"),
        ("above it by", lambda t: _interval(t["above_generator_mean"], "difference")),
        ("PLCC", lambda t: f"{t['plcc']:.3f}"),
        ("RMSE, on 0..5", lambda t: f"{t['rmse']:.3f}"),
        ("better of two images of one prompt", lambda t: _interval(t["pairs_of_one_prompt"], "accuracy")),
        ("the same by the generator's mean", lambda t: f"{t['pairs_by_generator_mean']['accuracy']:.3f}"),
    ]
    return "\n".join([*lines, *(f"| {name} | {of(q)} | {of(c)} |" for name, of in rows)])


def _within(found: dict[str, Any]) -> str:
    left = found["leave-out"]
    q, c = (found["development"][t]["within_generator"] for t in ("quality", "correspondence"))
    lines = [
        "| generator | quality | correspondence | quality, left out of training | the same, new prompts |",
        "|---|---|---|---|---|",
    ]
    for name in q:
        out = left[name]
        lines.append(f"| {name} | {q[name]:.2f} | {c[name]:.2f} | {out['srcc']:.2f} | {out['new_prompts']:.2f} |")
    columns = [[*q.values()], [*c.values()], *([v[key] for v in left.values()] for key in ("srcc", "new_prompts"))]
    means = " | ".join(f"{sum(column) / len(column):.2f}" for column in columns)
    return "\n".join([*lines, f"| mean | {means} |"])


def _photographs(found: dict[str, Any]) -> str:
    half = found["development"]["photographs"]["other_half"]["srcc"]
    lines = ["| trained on | measured on | SRCC |", "|---|---|---|"]
    lines.append(f"| 192 prompts and half of the 400 photographs | the other half | {_interval(half, 'value')} |")
    if never := found.get("no-photographs"):
        alone = _interval(never["all"]["srcc"], "value")
        lines.append(f"| 192 prompts and no photograph | all 400 | {alone} |")
    return "\n".join(lines)


def _int8(found: dict[str, Any] | None) -> str:
    kinds = {"on CPUs with VNNI": "sums of 32 bits", "on others": "sums of 16 bits"}
    rows = {cpu: found[kind] for cpu, kind in kinds.items() if kind in found} if found else {}
    if not rows:
        return ""
    lines = [f"- {cpu}: by {of['mean']:.3f} on average and {of['max']:.2f} at most" for cpu, of in rows.items()]
    return (
        "On x86 CPUs\nwith AVX2 they run in int8 instead, which is faster. Over the same images, qualities of the"
        " weights that\nship then differ from those in fp32\n\n" + ";\n".join(lines) + ".\n\n"
        "Familiarity and intervals were fitted without int8."
    )


def _brisque(found: dict[str, float] | None) -> str:
    if not found:
        return ""
    return (
        "BRISQUE (package brisque 0.2.0), for comparison: SRCC with quality is"
        f" {found['development']:.3f} on the development prompts, {found['within']:.3f} within a generator on average,"
        f" and {found['photographs']:.3f} on the other half of the photographs."
    )


def _kodak(ladders: dict[str, list[float]]) -> str:
    lines = ["| | clean | 1 | 2 | 3 | 4 | falls at every step |", "|---|---|---|---|---|---|---|"]
    for kind, means in ladders.items():
        falls = all(a > b for a, b in itertools.pairwise(means))
        lines.append(f"| {kind} | " + " | ".join(f"{m:.2f}" for m in means) + f" | {'yes' if falls else 'no'} |")
    return "\n".join(lines)
