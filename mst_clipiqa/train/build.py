"""A rated set, or pairs with preferences, in; a model folder out: what ``mst-clipiqa train`` does.

The test part is set aside first. A model is trained on the features of the other parts and saved. Only then is the
test part encoded, so that the card can state how well the saved model does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from mst_clipiqa.data import PreferenceSet
from mst_clipiqa.features.image_encoder import ImageEncoder
from mst_clipiqa.features.pipeline import Bar
from mst_clipiqa.model_folder import Target, save_model
from mst_clipiqa.tables.atomic import write_atomically
from mst_clipiqa.train.card import card
from mst_clipiqa.train.checkpoint import Epoch
from mst_clipiqa.train.curves import draw_history
from mst_clipiqa.train.job import TrainingJob
from mst_clipiqa.train.joining import SPLIT_FILE, config_of, finish, joined, make_way, older_model
from mst_clipiqa.train.learn import Learnt, learn
from mst_clipiqa.train.measure import TrainingResult, measure
from mst_clipiqa.train.training_file import read_training, write_training


def build(
    job: TrainingJob,
    encoder: ImageEncoder,
    bar: Bar,
    log: Callable[[Epoch], None] = lambda epoch: None,
    kept: Callable[[Path], None] = lambda place: None,
) -> TrainingResult | None:
    """Train, save the model folder, then evaluate on the test part and write the card.

    Args:
        job: what to train.
        encoder: the frozen pair.
        bar: opens a progress bar: ``bar(label, total)``.
        log: called after each epoch.
        kept: called with the place of each card that somebody had edited, also while the training ran.

    Returns:
        The result; None if the split has no test part.

    Raises:
        UsageError: the folder holds files that are not those of a model, or another split; or another process saves a
            model there meanwhile.
        DataError: too few images have a rating of the target.
        ModelError: a file of the folder is damaged, or its model has other encoders.
    """
    if not job.preferences:
        job.split.check_rated(job.target, "train", "validation")
    elif job.has_ratings:  # pairs can select the epoch, but only ratings give the scale
        job.split.check_rated(job.target, "train")
    older, config = older_model(job, encoder), config_of(job.out)
    reference = older.reference if older else None  # the intervals of the other targets depend on it
    with _folder(job.out):
        learnt = learn(job.usable.for_training(), job, encoder, bar, reference=reference, log=log)
    make_way(job, config, kept)
    saved = joined(job, encoder, older, (_target(job, learnt), learnt.fitted.model, learnt.reference))
    others = {name: entry for name, entry in read_training(job.out).items() if older and name != job.target}
    save_model(saved, job.out, card(saved.config, job.split.protocol, others))
    job.split.save(job.out / SPLIT_FILE)
    result = measure(saved, job, encoder, bar) if job.split.test else None
    write_training(job.out, job.target, _entry(job, encoder, learnt, result))
    write_atomically(job.out / f"{job.target}.png", draw_history(learnt.fitted.history, job.target))
    finish(job, saved, card(saved.config, job.split.protocol, read_training(job.out)), kept)
    return result


@contextmanager
def _folder(path: Path) -> Iterator[None]:
    """Make a folder before hours of work rather than after; remove it if the work fails and leaves nothing in it."""
    is_new = not path.exists()
    path.mkdir(parents=True, exist_ok=True)
    try:
        yield
    except BaseException:
        if is_new:
            with suppress(OSError):  # not empty: it holds a checkpoint
                path.rmdir()
        raise


def _target(job: TrainingJob, learnt: Learnt) -> Target:
    """Return the new target as config.json has it."""
    wide = learnt.widening
    interval, growth = (wide.interval, wide.growth) if wide else (None, 0.0)
    return Target(job.head, *job.scale, interval, calibrated=job.has_ratings, growth=growth)


def _entry(job: TrainingJob, encoder: ImageEncoder, learnt: Learnt, result: TrainingResult | None) -> dict[str, Any]:
    """Return this training's entry in ``training.json``."""
    return {
        "data": job.rated.name,
        "licence": job.rated.licence,
        "citation": job.rated.citation,
        "protocol": job.split.protocol,
        "leakage": job.usable.leakage,
        "images": {part: len(names) for part, names in job.split.names().items()},
        "rated": {part: len(names) for part, names in job.split.rated(job.target).names().items()},
        "unread": learnt.unread + (result.unread if result else 0),
        "head": job.head,
        "recipe": asdict(job.recipe),
        "precision": encoder.encoders.precision,
        "threads": 1,  # of ``fit``, whose seconds these are
        "seconds": round(learnt.seconds, 1),
        "best": asdict(learnt.fitted.best),
        "widening": learnt.widening and asdict(learnt.widening),
        "history": [asdict(line) for line in learnt.fitted.history],
        "preferences": job.preferences and _pairs_json(job, job.preferences),
        "test": None if result is None else _result_json(result),
    }


def _pairs_json(job: TrainingJob, preferences: PreferenceSet) -> dict[str, Any]:
    parts = {"train": job.split.train, "validation": job.split.validation, "test": job.split.test}
    return {"data": preferences.images.name, **{name: len(job.pairs(part)) for name, part in parts.items()}}


def _result_json(result: TrainingResult) -> dict[str, Any]:
    return {
        **(result.evaluation.to_json() if result.evaluation else {}),
        "baseline_srcc": result.baseline_srcc,
        "preferences": result.preferences and asdict(result.preferences),
        "contamination": asdict(result.contamination) | {"label": result.contamination.label},
    }
