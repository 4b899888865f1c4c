"""The model card: what a model was trained on, how, and how well it agrees with human ratings."""

from __future__ import annotations

from typing import Any

from mst_clipiqa.data.sets import OWN_FORMATS
from mst_clipiqa.encoders.families import PAIRS
from mst_clipiqa.encoders.precision import Precision
from mst_clipiqa.errors import counted, percent_seen
from mst_clipiqa.evaluate.caution import say_few_groups
from mst_clipiqa.model_folder import ModelConfig
from mst_clipiqa.train.contamination import overstate
from mst_clipiqa.train.front_matter import CORRELATIONS, MeasuredResult, front_matter


def card(config: ModelConfig, protocol: str, trainings: dict[str, Any]) -> str:
    """Return README.md of a model folder; it begins with what the Hugging Face hub reads of a model.

    Args:
        config: the model.
        protocol: how the data were split, in words.
        trainings: target -> its entry in training.json; empty before the model is evaluated.
    """
    lines = [
        f"# {config.name}",
        "",
        "Scores generated images with MST-CLIPIQA (arXiv 2606.16799): fusion and heads over frozen encoders.",
        "",
        f"- Encoders: `{config.encoders.source}`, sha256 `{config.encoders.sha256[:16]}`, size {config.encoders.dim}",
        *_encoder_notes(config.encoders.source),
        f"- Split: {protocol}",
        "- Higher is better for every score.",
        "",
        "| target | head | scale | 90 % interval, familiar images |",
        "|---|---|---|---|",
    ]
    for name, target in config.targets.items():
        half = "none" if target.interval is None else f"± {target.interval:.3g}"
        lines.append(f"| {name} | {target.head} | {target.low:g} to {target.high:g} | {half} |")
    if any(target.calibrated and target.interval is None for target in config.targets.values()):
        lines += [
            "",
            "Half of the validation part calibrates the intervals: 'none' means fewer than 9 prompts or 20 images.",
        ]
    for name, training in trainings.items():
        lines += ["", *_training(name, training)]
    lines += ["", *_use(config)]
    rated = [training["data"] for training in trainings.values() if not _of_pairs_alone(training)]
    data = [name for name in rated if name not in OWN_FORMATS]  # "csv" would be somebody else's data set on the hub
    metrics = list(CORRELATIONS) if rated or not trainings else []
    metrics += ["accuracy"] if any(training.get("preferences") for training in trainings.values()) else []
    measured = _measured(trainings)
    return front_matter(config.name, config.encoders.source, data, measured, metrics=metrics) + "\n".join(lines) + "\n"


def _use(config: ModelConfig) -> list[str]:
    """Return how somebody who finds the model scores with it."""
    prompts = " --prompts prompts.csv" if any(target.head == "prompt" for target in config.targets.values()) else ""
    return [
        "## Use",
        "",
        "With the package `mst-clipiqa`; MODEL is this folder, or its id on the Hugging Face hub:",
        "",
        "```",
        f"mst-clipiqa score images/ --model MODEL{prompts} -o scores.csv",
        "```",
    ]


def _measured(trainings: dict[str, Any]) -> list[MeasuredResult]:
    """Return the figures of each target that was tested on images and prompts that had not been seen.

    The model-index has no place for a caveat, so a contaminated figure would read there as a result.
    """
    found = []
    for name, training in trainings.items():
        test = training["test"]
        if test is not None and test.get("agreement") and not test["contamination"]["label"]:
            values = (test["agreement"][measure] for measure in ("srcc", "plcc"))
            numbers = (float("nan") if value is None else value for value in values)
            found.append(MeasuredResult(name, training["data"], "test", training["protocol"], *numbers))
    return found


def _encoder_notes(source: str) -> list[str]:
    """Return a line on the licence of a pair with a short name, or on a text encoder that is named apart."""
    if source in PAIRS:
        return [f"- Licence of the encoders' weights: {PAIRS[source].licence}"]
    names = source.split(",")
    return [f"- Text encoder: `{names[2]}`"] if len(names) == 3 else []


def _training(name: str, training: dict[str, Any]) -> list[str]:
    best, recipe, pairs = training["best"], training["recipe"], training.get("preferences") or {}
    if _of_pairs_alone(training):
        source = f"{pairs['data']}, {pairs['train']} to train on"
    else:
        source = f"{training['data']} ({training['licence'] or 'licence not stated'})"
        source += f" and {pairs['data']}, {pairs['train']} to train on," if pairs else ""
    lines = [
        f"## {name}",
        "",
        f"Trained on {source} "
        f"with the `{recipe['name']}` recipe, "
        f"seed {recipe['seed']}, in {training['seconds']} s on {counted(training['threads'], 'thread')}. "
        f"Epoch {best['epoch']} at learning rate {best['learning_rate']:g} was selected on the validation part "
        f"({_selected(best)}); the test part was not used for selection.{_computed(training.get('precision'))}",
        "",
        f"![training curve]({name}.png)",
    ]
    if _of_pairs_alone(training):
        lines += [
            "",
            "**Uncalibrated: there were no ratings, so scores only order images; their scale means nothing.**",
        ]
    if (rated := training.get("rated")) and rated != training["images"] and not _of_pairs_alone(training):
        parts = " / ".join(f"{rated[part]:,} of {of:,}" for part, of in training["images"].items())
        lines += ["", f"Images with a rating of {name}, the only ones used: {parts} (train / validation / test)."]
    if unread := training.get("unread"):
        lines += ["", f"Left out: {counted(unread, 'image')} whose prompt the text encoder does not read."]
    return lines + ([] if training["test"] is None else ["", *_test(training)])


def _computed(precision: str | None) -> str:
    """Return a sentence on what the features were computed in; older trainings do not say."""
    if precision is None:
        return ""
    computed = Precision.parse(precision)  # training.json has the rest, by which one int8 differs from another
    return f" Features were computed in {computed.format}" + (
        f" with merged tokens: score with `--merge {computed.merged}` too." if computed.merged else "."
    )


def _of_pairs_alone(training: dict[str, Any]) -> bool:
    """Return whether a target was trained without ratings."""
    pairs = training.get("preferences") or {}
    return bool(pairs) and pairs["data"] == training["data"]


def _selected(best: dict[str, Any]) -> str:
    """Return the figures that selected the epoch, in words."""
    found = [("SRCC", best["validation_srcc"]), ("share of pairs ordered right", best.get("validation_pairs"))]
    known = ", ".join(f"{name} {value:.4f}" for name, value in found if value is not None)
    return known or "the first one, as all images or pairs there are rated the same"


def _test(training: dict[str, Any]) -> list[str]:
    test = training["test"]
    agreement, preferences = test.get("agreement"), test.get("preferences")
    if not agreement and not preferences:
        return ["No image of the test part was scored."]
    lines = [_tested(training), "", "| measure | value | interval |", "|---|---|---|"]
    for measure, interval in test.get("intervals", {}).items():
        lines.append(f"| {measure} | {_number(interval['value'])} | {_ends(interval)} |")
    if test["baseline_srcc"] is not None:  # None if the generators are unknown
        lines.append(f"| srcc of the generator's mean | {_number(test['baseline_srcc'])} | |")
    two = (("better of two images of one prompt", test.get("pairs")), ("preferred image of a pair", preferences))
    for name, pairs in two:
        if pairs and pairs["accuracy"] is not None:
            lines.append(f"| {name} | {_number(pairs['accuracy'])} | {_ends(pairs)} |")
    if test.get("coverage") is not None:
        lines.append(f"| coverage of the 90 % interval | {test['coverage']:.3f} | |")
    over = "images" if training["leakage"] is None else "prompts"
    groups = test["groups"] if agreement else preferences["groups"]
    if few := say_few_groups(groups, over):
        lines += ["", few]
    if test["contamination"]["label"]:
        label = test["contamination"]["label"].capitalize()
        lines += ["", f"**{label}. These figures {overstate(label)} the model, so the model-index omits them.**"]
    return lines


def _tested(training: dict[str, Any]) -> str:
    """Return a sentence on the images of the test, and on whether their prompts had been seen."""
    test, leaked = training["test"], training["leakage"]
    agreement, unit = test.get("agreement"), "prompts" if leaked is not None else "images"
    what = counted(agreement["n"], "image") if agreement else counted(test["preferences"]["pairs"], "pair")
    if agreement and leaked is not None:
        what += f" of {counted(test['groups'], 'prompt')}"
    seen = (
        "whether their prompts were seen in training is unknown"
        if leaked is None
        else f"{percent_seen(leaked)} of its images have a prompt that was seen in training"
    )
    return f"On the test part ({what}; {training['protocol']}); {seen}. Intervals: 95 %, bootstrap over {unit}."


def _ends(found: dict[str, Any]) -> str:
    """Return the ends of an interval, or why there is none."""
    return found.get("undefined") or f"{_number(found['low'])} to {_number(found['high'])}"


def _number(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.4f}"
