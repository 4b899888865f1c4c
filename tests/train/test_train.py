"""Training over features: same seed same bits, stop and resume, and a test part that nothing reaches."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from mst_clipiqa.data import RatedSet, Record, make_split
from mst_clipiqa.errors import DataError, ModelError, UsageError
from mst_clipiqa.features.image_encoder import ImageEncoder
from mst_clipiqa.features.pipeline import no_bar
from mst_clipiqa.model.heads import PromptHead
from mst_clipiqa.model.mst_clipiqa import MSTCLIPIQA, Head, zero_shot
from mst_clipiqa.model.mstfe import Stream
from mst_clipiqa.model_folder import TrainedModel, load_model, save_model
from mst_clipiqa.scoring.scorer import Scorer
from mst_clipiqa.train.build import build
from mst_clipiqa.train.checkpoint import Epoch
from mst_clipiqa.train.contamination import contamination, trained_on
from mst_clipiqa.train.features import FeatureTable, RatedFeatures, encode_records, rated_features
from mst_clipiqa.train.fit import Fitted, _cosine, fit, predict
from mst_clipiqa.train.intervals import halve_validation
from mst_clipiqa.train.job import TrainingJob
from mst_clipiqa.train.learn import Learnt, learn
from mst_clipiqa.train.measure import measure
from mst_clipiqa.train.recipe import FAST, PAPER, Recipe
from tests.fakes import FakePair, rated_set
from tests.scoring.test_scorer import model as closed_form_model

QUICK = replace(FAST, learning_rates=(1e-3, 3e-3), epochs=4, batch_size=8, patience=4)


@pytest.fixture(scope="module")
def table(rated: RatedSet) -> FeatureTable:
    return encode_records(ImageEncoder(FakePair()), rated.records, prompts=True)


def fitted(rated: RatedSet, table: FeatureTable, head: Head, recipe: Recipe, checkpoint: Path | None = None) -> Fitted:
    parts = make_split(rated.records, seed=1, validation_share=0.25).for_training()
    train, validation = (rated_features(table, p, "quality", head, (0, 5)) for p in (parts.train, parts.validation))
    return fit(train, validation, head, recipe, checkpoint=checkpoint)


def same_weights(a: Fitted, b: Fitted) -> bool:
    left, right = a.model.state_dict(), b.model.state_dict()
    return left.keys() == right.keys() and all(torch.equal(left[k], right[k]) for k in left)


@pytest.mark.parametrize("head", ["template", "prompt"])
def test_same_seed_same_bits(rated: RatedSet, table: FeatureTable, head: Head) -> None:
    one, two = (fitted(rated, table, head, QUICK) for _ in range(2))
    assert same_weights(one, two)
    assert one.history == two.history
    assert not same_weights(one, fitted(rated, table, head, replace(QUICK, seed=7)))


@pytest.mark.parametrize("stop", [1, 4, 6])
def test_stop_and_resume_ends_in_the_same_weights(
    rated: RatedSet, table: FeatureTable, tmp_path: Path, stop: int
) -> None:
    parts = make_split(rated.records, seed=1, validation_share=0.25).for_training()
    train, validation = (rated_features(table, p, "quality", "prompt", (0, 5)) for p in (parts.train, parts.validation))
    seen: list[Epoch] = []

    def interrupt(line: Epoch) -> None:
        seen.append(line)
        if len(seen) == stop:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(train, validation, "prompt", QUICK, checkpoint=tmp_path / "c.pt", report=interrupt)
    resumed = fit(train, validation, "prompt", QUICK, checkpoint=tmp_path / "c.pt", report=seen.append)
    whole = fitted(rated, table, "prompt", QUICK)
    assert same_weights(resumed, whole)
    assert resumed.history == whole.history == tuple(seen)


def test_a_checkpoint_of_another_training_is_refused(rated: RatedSet, table: FeatureTable, tmp_path: Path) -> None:
    fitted(rated, table, "template", QUICK, tmp_path / "c.pt")
    with pytest.raises(UsageError, match=r"Expected a checkpoint .*c\.pt, got that of another \(changed: recipe\): "):
        fitted(rated, table, "template", replace(QUICK, margin=0.2), tmp_path / "c.pt")


@pytest.mark.parametrize(
    ("other", "changed"),
    [
        (lambda part: replace(part, y=part.y.flip(0)), "targets"),
        (lambda part: replace(part, f_c=part.f_c.flip(1)), "features"),
        (lambda part: replace(part, f_f=part.f_f.flip(1)), "features"),
    ],
)
@pytest.mark.parametrize("which", [0, 1])
def test_a_checkpoint_of_another_target_or_encoder_is_refused(
    rated: RatedSet,
    table: FeatureTable,
    tmp_path: Path,
    other: Callable[[RatedFeatures], RatedFeatures],
    changed: str,
    which: int,
) -> None:
    split = make_split(rated.records, seed=1, validation_share=0.25).for_training()
    parts = [rated_features(table, p, "quality", "template", (0, 5)) for p in (split.train, split.validation)]
    fit(parts[0], parts[1], "template", replace(QUICK, epochs=1), checkpoint=tmp_path / "c.pt")
    parts[which] = other(parts[which])
    with pytest.raises(UsageError, match=rf"training in .*c\.pt, got that of another \(changed: {changed}\): "):
        fit(parts[0], parts[1], "template", replace(QUICK, epochs=1), checkpoint=tmp_path / "c.pt")


def test_training_learns_what_noise_does(rated: RatedSet, table: FeatureTable) -> None:
    found = fitted(rated, table, "prompt", replace(QUICK, epochs=30, patience=30))
    assert found.best.validation_srcc > 0.8
    losses = [line.training_loss for line in found.history]
    assert losses[-1] < losses[0] / 2


def test_a_rate_that_diverges_loses_to_one_that_does_not(rated: RatedSet, table: FeatureTable) -> None:
    # Weight decay takes off 99 times the weights each time.
    wild = replace(QUICK, learning_rates=(1.0,), weight_decay=100.0, batch_size=1, epochs=1, cosine=False)
    with pytest.raises(
        UsageError, match=r"^Expected a training that converges, got weights that are not finite: lower"
    ):
        fitted(rated, table, "prompt", wild)
    two = fitted(rated, table, "prompt", replace(wild, learning_rates=(1.0, 1e-3)))
    assert two.best.learning_rate == 1e-3
    assert same_weights(two, fitted(rated, table, "prompt", replace(wild, learning_rates=(1e-3,))))


def test_the_best_epoch_is_kept_not_the_last(rated: RatedSet, table: FeatureTable) -> None:
    found = fitted(rated, table, "prompt", QUICK)
    assert found.best.validation_srcc == max(line.validation_srcc for line in found.history)


def scripted(monkeypatch: pytest.MonkeyPatch, scores: Sequence[float]) -> None:
    """Let validation find these SRCCs, one per epoch; an epoch more is an error."""
    left = list(scores)

    def validated(model: MSTCLIPIQA, part: RatedFeatures, recipe: Recipe, line: Epoch) -> Epoch:
        return replace(line, validation_srcc=left.pop(0))

    monkeypatch.setattr("mst_clipiqa.train.fit._validate", validated)


def test_the_weights_are_those_of_the_best_epoch(
    rated: RatedSet, table: FeatureTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    steady = replace(QUICK, learning_rates=(1e-3,), cosine=False)
    scripted(monkeypatch, [0.1, 0.9, 0.3, 0.2])
    found = fitted(rated, table, "template", steady)
    scripted(monkeypatch, [0.1, 0.9])
    assert found.best.epoch == 2
    assert same_weights(found, fitted(rated, table, "template", replace(steady, epochs=2)))


@pytest.mark.parametrize(
    ("rates", "scores"),
    [
        (1, [0.5, 0.4, 0.3]),
        (1, [0.1, 0.0, 0.5, 0.4, 0.3]),  # the count starts again at each better epoch
        (2, [0.5, 0.4, 0.3, 0.2, 0.1, 0.0]),  # and at each rate, whose best is its own
    ],
)
def test_a_rate_is_abandoned_after_epochs_without_a_better_one(
    rated: RatedSet, table: FeatureTable, monkeypatch: pytest.MonkeyPatch, rates: int, scores: list[float]
) -> None:
    scripted(monkeypatch, scores)
    recipe = replace(QUICK, learning_rates=(1e-3, 3e-3)[:rates], epochs=9, patience=2)
    history = fitted(rated, table, "template", recipe).history
    assert [line.validation_srcc for line in history] == scores


def test_the_paper_recipe_is_the_published_one() -> None:
    assert PAPER.learning_rates == (5e-6,)
    assert (PAPER.weight_decay, PAPER.batch_size, PAPER.epochs) == (1e-3, 8, 20)
    assert (PAPER.ranking_weight, PAPER.margin, PAPER.decoupled, PAPER.cosine) == (1.0, 0.1, False, False)


def test_the_fast_recipe_takes_fewer_and_larger_steps_from_a_zero_shot_start_for_the_same_loss() -> None:
    assert (FAST.ranking_weight, FAST.margin) == (PAPER.ranking_weight, PAPER.margin)
    assert min(FAST.learning_rates) > max(PAPER.learning_rates)
    assert FAST.epochs / FAST.batch_size < PAPER.epochs / PAPER.batch_size  # steps
    assert FAST.identity_start and FAST.cosine


def test_a_zero_shot_start_is_one(rated: RatedSet, table: FeatureTable) -> None:
    still = replace(FAST, learning_rates=(1e-12,), weight_decay=0.0, epochs=1)
    part = rated_features(table, rated.records, "quality", "template", (0, 5))
    plain = zero_shot(part.f_c.shape[1])
    for identity_start in (True, False):
        found = fitted(rated, table, "template", replace(still, identity_start=identity_start)).model
        alike = torch.allclose(predict(found, part), predict(plain, part), atol=1e-5)
        assert alike is identity_start


def test_a_cosine_rate_warms_up_without_a_jump_and_decays_to_nothing() -> None:
    factors = np.array([_cosine(share) for share in np.linspace(0, 1, 201)])
    top = int(factors.argmax())
    assert 0 < factors[0] < 0.1
    assert factors[top] == pytest.approx(1)
    assert factors[-1] == pytest.approx(0)
    assert (np.diff(factors[: top + 1]) > 0).all() and (np.diff(factors[top:]) < 0).all()
    assert np.abs(np.diff(factors)).max() < 0.15


@pytest.mark.parametrize("prompts", [2, 3, 4, 5])
def test_every_other_prompt_of_validation_calibrates_and_the_first_selects(rated: RatedSet, prompts: int) -> None:
    groups = list(dict.fromkeys(record.group for record in rated.records))[:prompts]
    selecting, held = halve_validation([record for record in rated.records if record.group in groups])
    both = [list(dict.fromkeys(record.group for record in part)) for part in (selecting, held)]
    assert both == ([groups[::2], groups[1::2]] if prompts > 3 else [groups, []])


def test_too_few_images_is_said(table: FeatureTable, rated: RatedSet) -> None:
    few = rated_features(table, rated.records[:1], "quality", "template", (0, 5))
    with pytest.raises(UsageError, match="Expected at least 2 images to train on and 2 to validate on, got 1 and 1"):
        fit(few, few, "template", QUICK)


def job(rated: RatedSet, out: Path, head: Head = "template", target: str = "quality") -> TrainingJob:
    return TrainingJob(rated, make_split(rated.records, seed=2, validation_share=0.25), target, head, QUICK, out)


def test_training_cannot_reach_the_test_part(rated: RatedSet, tmp_path: Path) -> None:
    what = job(rated, tmp_path / "model")
    poisoned = [replace(r, file=tmp_path / "gone.png", targets={}) for r in what.split.test]
    safe = replace(what, split=replace(what.split, test=tuple(poisoned)))
    pair = FakePair()
    safe.out.mkdir()
    learn(safe.split.for_training(), safe, ImageEncoder(pair), no_bar)
    assert pair.images == len(what.split.train) + len(what.split.validation)
    assert not hasattr(what.split.for_training(), "test")


def test_build_makes_a_folder_that_scores_in_native_units(
    rated: RatedSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, saved = tmp_path / "model", []

    def noted(model: TrainedModel, folder: Path, card: str) -> None:
        saved.append(folder)
        save_model(model, folder, card)

    bars: dict[str, tuple[int, list[int]]] = {}

    @contextmanager
    def counted(label: str, total: int) -> Iterator[Callable[[int], None]]:
        bars[label] = total, []
        yield bars[label][1].append

    monkeypatch.setattr("mst_clipiqa.train.build.save_model", noted)
    result = build(job(rated, out), ImageEncoder(FakePair()), counted)
    assert bars.keys() == {"Encoding", "Training", "Testing"}
    assert all(sum(steps) == total for total, steps in bars.values())
    assert result is not None
    assert result.evaluation is not None
    assert saved == [out]  # once; the card is replaced on its own
    names = {p.name for p in out.iterdir()}
    assert names >= {"config.json", "model.safetensors", "README.md", "training.json", "quality.png", "split.json"}
    assert "checkpoint.pt" not in names
    training = json.loads((out / "training.json").read_text())["quality"]
    assert training["leakage"] == 0
    assert training["test"]["agreement"]["srcc"] == pytest.approx(result.evaluation.agreement.srcc)
    assert "of its images have a prompt that was seen in training" in (out / "README.md").read_text()
    model = load_model(out)
    assert model.config.targets["quality"].interval is None  # three validation prompts: all of them select
    assert model.reference is None
    scorer = Scorer(model, ImageEncoder(FakePair()))
    test = job(rated, out).split.test
    scores = scorer([str(r.file) for r in test])
    assert [s.quality for s in scores] == pytest.approx(list(result.predictions), abs=1e-5)


@pytest.mark.parametrize("leave_out", [True, False])
def test_prompts_that_chose_nothing_calibrate_and_so_does_each_generator_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, leave_out: bool
) -> None:
    made = rated_set(tmp_path / "rated", prompts=60, each=3)
    rated = replace(made, records=tuple(replace(r, generator=f"gen{i % 3}") for i, r in enumerate(made.records)))
    split = make_split(rated.records, seed=2, validation_share=0.5)
    groups = list(dict.fromkeys(r.group for r in split.validation))
    selecting, trainings = len(groups[::2]) * 3, []

    def noted(training: RatedFeatures, validation: RatedFeatures, *rest: Any, **more: Any) -> Fitted:
        trainings.append((len(training), len(validation)))
        return fit(training, validation, *rest, **more)

    for module in ("learn", "intervals"):
        monkeypatch.setattr(f"mst_clipiqa.train.{module}.fit", noted)
    job = TrainingJob(rated, split, "quality", "template", replace(QUICK, epochs=1), tmp_path / "m", leave_out)
    result = build(job, ImageEncoder(FakePair()), no_bar)
    whole = (len(split.train), selecting)
    third = (whole[0] * 2 // 3, whole[1] * 2 // 3)
    assert trainings == [whole, *([third] * 3 if leave_out else [])]
    model = load_model(tmp_path / "m")
    assert model.config.targets["quality"].interval is not None
    assert model.reference is not None
    inside = []
    scores = Scorer(model, ImageEncoder(FakePair()))([str(r.file) for r in split.test])
    for score, record in zip(scores, split.test, strict=True):
        low, high = score.intervals["quality"]
        assert 0 <= low <= (score.quality or 0) <= high <= 5
        assert 0 <= (score.familiarity or 0) <= 1
        inside.append(low <= record.targets["quality"] <= high)
    assert result is not None and result.evaluation is not None
    assert result.evaluation.coverage == pytest.approx(np.mean(inside))  # what is measured is what is given


def test_only_prompts_that_chose_nothing_decide_the_interval_in_the_units_of_the_ratings(tmp_path: Path) -> None:
    rated = rated_set(tmp_path / "rated", prompts=60, each=2)
    split = make_split(rated.records, seed=2, validation_share=0.5)
    held = {record.name for record in halve_validation(split.validation)[1]}

    def learnt(name: str, scale: tuple[float, float], rating: Callable[[Record, float], float]) -> Learnt:
        def rerated(records: Sequence[Record]) -> tuple[Record, ...]:
            return tuple(replace(r, targets={"quality": rating(r, r.targets["quality"])}) for r in records)

        parts = replace(split, train=rerated(split.train), validation=rerated(split.validation))
        what = replace(rated, ranges={"quality": scale})
        recipe = replace(QUICK, learning_rates=(1e-3,), epochs=1)
        job = TrainingJob(what, parts, "quality", "template", recipe, tmp_path / name, leave_out=False)
        job.out.mkdir()
        return learn(parts.for_training(), job, ImageEncoder(FakePair()), no_bar)

    plain = learnt("plain", (0.0, 5.0), lambda _, y: y)
    turned = learnt("turned", (0.0, 5.0), lambda r, y: 5 - y if r.name in held else y)
    larger = learnt("larger", (-30.0, 70.0), lambda _, y: 20 * y - 30)
    assert plain.widening and turned.widening and larger.widening
    assert same_weights(plain.fitted, turned.fitted)
    assert turned.widening != plain.widening
    assert larger.widening.interval == pytest.approx(20 * plain.widening.interval, rel=1e-2)


class TwoSizes(FakePair):
    """Features of the fine stream are cut to ``dim_fine`` numbers."""

    def encode_chunk(self, stream: Stream, views: Tensor) -> Tensor:
        found = super().encode_chunk(stream, views)
        return found if stream == "coarse" else F.pad(found, (0, self.dim_fine - found.shape[1]))


@pytest.mark.parametrize("fine", [40, 64, 80])
def test_a_model_folder_knows_both_sizes_of_features(rated: RatedSet, tmp_path: Path, fine: int) -> None:
    pair = TwoSizes(dim_fine=fine)
    what = job(rated, tmp_path / "m")
    build(replace(what, recipe=replace(QUICK, epochs=1)), ImageEncoder(pair), no_bar)
    model = load_model(tmp_path / "m")
    assert model.config.encoders.features == pair.dim + fine
    assert model.config.encoders.dim_fine == (None if fine == pair.dim else fine)  # None also in older folders
    assert Scorer(model, ImageEncoder(pair))(str(rated.records[0].file)).quality is not None


def test_a_head_that_leaves_the_scale_is_measured_on_the_scores_that_it_gives(rated: RatedSet, tmp_path: Path) -> None:
    pair = FakePair()
    made = closed_form_model(pair)
    part = made.parts["correspondence"]
    assert isinstance(part.head, PromptHead)
    torch.nn.init.constant_(part.head.w_o.bias, 5.0)  # on a scale 1..5: some scores are beyond its end
    what = job(rated, tmp_path / "m", "prompt", "correspondence")
    result = measure(made, what, ImageEncoder(pair), no_bar)
    given = Scorer(made, ImageEncoder(pair))(
        [str(r.file) for r in what.split.test], [r.prompt or "" for r in what.split.test]
    )
    scores = [score.correspondence for score in given]
    assert scores.count(5.0) > 0
    assert min(result.predictions) < 5.0
    assert list(result.predictions) == pytest.approx(scores, abs=1e-5)


def test_a_second_target_joins_the_folder(rated: RatedSet, tmp_path: Path) -> None:
    out = tmp_path / "model"
    one = job(rated, out)
    build(one, ImageEncoder(FakePair()), no_bar)
    first = load_model(out).parts["quality"].state_dict()
    build(job(rated, out, "prompt", "correspondence"), ImageEncoder(FakePair()), no_bar)
    both = load_model(out)
    assert both.trained_on == trained_on([*one.split.train, *one.split.validation])
    assert list(both.config.targets) == ["quality", "correspondence"]
    assert all(torch.equal(first[k], v) for k, v in both.parts["quality"].state_dict().items())
    with pytest.raises(ModelError, match="Expected a new folder or one with the same encoders"):
        build(job(rated, out), ImageEncoder(FakePair(sha256="0" * 64)), no_bar)


def test_what_a_model_has_seen_is_seen_again(rated: RatedSet, tmp_path: Path) -> None:
    out = tmp_path / "model"
    what = job(rated, out)
    build(what, ImageEncoder(FakePair()), no_bar)
    seen = {"the model": load_model(out).trained_on}
    assert contamination(what.split.test, seen).label == ""
    learnt = contamination(what.split.train, seen)
    assert (learnt.images, learnt.prompts) == (1.0, 1.0)
    assert learnt.label == "contaminated: the model had seen 100 % of the images and 100 % of the prompts"
    chosen_by = contamination(what.split.validation, seen)  # they selected the epoch
    assert (chosen_by.images, chosen_by.prompts) == (1.0, 1.0)
    prompts = {"the model": replace(seen["the model"], images=frozenset())}
    assert contamination(what.split.train, prompts).label.endswith("0 % of the images and 100 % of the prompts")
    mixed: list[Record] = [*what.split.train[:4], *what.split.test[:4]]
    assert contamination(mixed, seen).images == 0.5


def test_unknown_targets_and_missing_prompts_are_said(rated: RatedSet, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"Expected a target of toy .*did you mean 'quality'"):
        build(job(rated, tmp_path / "m", target="qualty"), ImageEncoder(FakePair()), no_bar)
    silent = tuple(replace(r, prompt=None) for r in rated.records)
    with pytest.raises(DataError, match="Expected a prompt for every image, got none for 64"):
        encode_records(ImageEncoder(FakePair()), silent, prompts=True)


def test_an_unreadable_image_stops_training_with_its_name(rated: RatedSet, tmp_path: Path) -> None:
    (tmp_path / "bad.png").write_bytes(b"")
    records = [*rated.records[:3], replace(rated.records[3], file=tmp_path / "bad.png", name="bad")]
    with pytest.raises(DataError, match="Expected 4 readable images, but 1 cannot be read, first bad: expected"):
        encode_records(ImageEncoder(FakePair()), records, prompts=False)


@pytest.mark.parametrize("head", ["template", "prompt"])
def test_a_checkpoint_of_other_prompts_is_refused(
    rated: RatedSet, table: FeatureTable, tmp_path: Path, head: Head
) -> None:
    assert table.prompts is not None
    fitted(rated, table, head, replace(QUICK, epochs=1), tmp_path / "c.pt")
    prompts = replace(table.prompts, tokens=table.prompts.tokens.flip(0))
    other = replace(table, prompts=prompts, templates=table.templates.flip(0))
    with pytest.raises(UsageError, match=r"\(changed: texts\): choose another folder"):
        fitted(rated, other, head, replace(QUICK, epochs=1), tmp_path / "c.pt")


def test_prompts_are_read_without_syntax_as_in_scoring(rated: RatedSet, tmp_path: Path) -> None:
    plain = [replace(r, prompt="a red ball") for r in rated.records[:2]]
    marked = [plain[0], replace(plain[1], prompt="a (red:1.3) ball <lora:x:0.8>")]
    one, two = (encode_records(ImageEncoder(FakePair()), records, prompts=True) for records in (plain, marked))
    assert one.prompts is not None
    assert two.prompts is not None
    assert torch.equal(one.prompts.tokens, two.prompts.tokens)
    nothing = [replace(plain[0], prompt="<lora:x:0.8>")]
    with pytest.raises(DataError, match="Expected a prompt for every image, got none for 1"):
        encode_records(ImageEncoder(FakePair()), nothing, prompts=True)
