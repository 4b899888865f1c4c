"""How the embedded model is made: the split is fixed, distortions get worse, the pieces do what they say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from mini_training.data import DEVELOPMENT, VALIDATION, Rated, part_of
from mini_training.describe import STEPS, Described, Ladder, configs, describe_file, describe_ladder
from mini_training.distort import KINDS, LADDER, distort
from mini_training.fit import CAPTION, encode, fit
from mini_training.limits import folds, limits
from mini_training.plan import Plan, Recipe, Sizes
from mini_training.scenes import COLOURS, THINGS, draw, scenes
from mini_training.teacher import Teacher
from mini_training.words import SPECIAL, build_words
from mst_clipiqa.encoders.mini.statistics import RADIAL


def a_image() -> Image.Image:
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
    clean = a_image()
    pixels = np.asarray(clean, float)
    errors = [np.abs(np.asarray(distort(clean, kind, s, seed=3), float) - pixels).mean() for s in LADDER]
    assert errors[0] > 0
    assert errors == sorted(errors)
    again = distort(clean, kind, LADDER[1], seed=3)
    assert np.array_equal(np.asarray(again), np.asarray(distort(clean, kind, LADDER[1], seed=3)))


def test_words_without_a_teacher_still_spell_anything() -> None:
    words = build_words(["a red bus"], distil=False)
    known = [words.tokenizer.id_to_token(i) for i in torch.nonzero(words.known).flatten().tolist()]
    assert {"red", "bus"} <= set(known)
    assert not set(known) & set(SPECIAL)
    assert "[UNK]" not in words.tokenizer.encode("zebra").tokens


def toy() -> tuple[Rated, Described]:
    rng = np.random.default_rng(0)
    n, coarse, fine = 12, *(config.inputs for config in configs(8, 8, 0.0))

    def normal(*shape: int) -> torch.Tensor:
        return torch.from_numpy(rng.standard_normal(shape).astype(np.float32))

    rated = Rated(
        names=[f"{i}.jpg" for i in range(n)],
        prompts=[f"a {('red', 'blue')[i % 2]} bus" for i in range(n)],
        prompt_ids=np.arange(n) % 2,
        groups=np.arange(n) % 3,
        group_names=["a", "b", "c"],
        ratings=rng.uniform(0, 5, (n, 4)).astype(np.float32),
        part=np.array(["train"] * n),
    )
    rows = np.array([-1, 0, 1, 2, 10, 11])
    ladders = normal(6, 1 + STEPS, coarse), normal(6, 1 + STEPS, fine)
    kinds, strengths = torch.arange(6), torch.linspace(0, 1, STEPS).repeat(6, 1)
    drawn = normal(len(scenes()), coarse), normal(len(scenes()), fine)
    return rated, Described(normal(n, coarse), normal(n, fine), *ladders, rows, kinds, strengths, *drawn)


def trained(rated: Rated, described: Described, rows: np.ndarray) -> dict[str, torch.Tensor]:
    recipe = Recipe(sizes=Sizes(dim=16, hidden=8), plan=Plan(epochs=2, batch=5, ladders=2, scenes=3))
    return fit(rated, described, rows, build_words(["a red bus"], distil=False), recipe).state_dict()


def test_the_same_seed_gives_the_same_weights() -> None:
    rated, described = toy()
    first, second = (trained(rated, described, np.arange(8)) for _ in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_training_reads_nothing_of_the_images_that_are_held_out() -> None:
    rated, described = toy()
    before = trained(rated, described, np.arange(8))
    for values in (described.coarse, described.fine, described.ladder_coarse, described.ladder_fine):
        values[-2 if len(values) == 6 else 8 :] = 99.0
    rated.ratings[8:] = 99.0
    after = trained(rated, described, np.arange(8))
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_the_teacher_does_not_depend_on_order_or_scale() -> None:
    rated, described = toy()
    rows, order = np.arange(9), np.array([4, 0, 8, 2, 6, 1, 3, 7, 5])
    first, other = Teacher(rated, described, rows), Teacher(rated, described, rows[order])
    torch.testing.assert_close(other.own(rows), first.own(rows), rtol=0, atol=1e-4)
    rated.ratings[:, 0] *= 0.5
    rated.ratings[:, 1] += 1.0
    moved = Teacher(rated, described, rows)
    torch.testing.assert_close(moved.own(rows), first.own(rows) * torch.tensor([0.5, 1.0]) + torch.tensor([0.0, 1.0]))


def test_the_teacher_gives_a_generator_its_mean() -> None:
    rated, described = toy()
    own = Teacher(rated, described, np.arange(12)).own(np.arange(12))
    for group in range(3):
        mean = rated.ratings[rated.groups == group, :2].mean(0)
        torch.testing.assert_close(own[rated.groups == group].mean(0), torch.from_numpy(mean))


def test_the_teacher_hears_the_prompt_for_correspondence_alone() -> None:
    rated, described = toy()
    teacher = Teacher(rated, described, np.arange(12))
    asked = (np.full(3, row) for row in (0, 2, 1))
    red, same, blue = teacher.answers(described.coarse[:3], described.fine[:3], *asked)
    assert torch.equal(red, same)
    assert torch.equal(red[:, 0], blue[:, 0])
    assert (red[:, 1] - blue[:, 1]).abs().min() > 1e-4


def test_of_a_image_unlike_any_the_teacher_says_about_the_mean() -> None:
    rated, described = toy()
    rated.groups[:] = 0
    teacher = Teacher(rated, described, np.arange(12))
    far = teacher.answers(described.coarse[:1] + 100, described.fine[:1] + 100, np.zeros(1, int))[0]
    assert abs(far[0, 0] - rated.ratings[:, 0].mean()) < 0.01


def test_the_limits_are_measured_on_prompts_that_were_not_fitted() -> None:
    rated, _ = toy()
    rated.prompt_ids[:] = np.arange(12) // 2
    tested = []
    for fitted, test in folds(rated, np.arange(10)):
        assert not set(rated.prompt_ids[fitted]) & set(rated.prompt_ids[test])
        assert sorted([*fitted, *test]) == list(range(10))
        tested += [*test]
    assert sorted(tested) == list(range(10))


def test_where_ratings_are_levels_alone_the_generators_mean_says_all() -> None:
    rated, described = toy()
    rated.prompt_ids[:] = np.arange(12) // 2
    rated.ratings[:, 0] = np.array([1.0, 4.0, 2.0])[rated.groups]
    found: Any = limits(rated, described)
    assert found["five_folds"]["generator's mean"]["srcc"] == pytest.approx(1.0)
    assert found["five_folds"]["generator told"]["srcc"] > 0.9
    assert set(found["left_out"]) == {"a", "b", "c"}


def test_ladders_start_with_the_clean_image_and_get_worse(tmp_path: Path) -> None:
    a_image().resize((512, 512)).save(tmp_path / "one.png")
    ladder = Ladder(0, -1, list(KINDS).index("noise"), LADDER)
    coarse, fine = describe_ladder(ladder, tmp_path / "one.png")
    clean = describe_file(tmp_path / "one.png")
    assert torch.equal(coarse[0], clean[0])
    assert torch.equal(fine[0], clean[1])
    loud = fine[:, RADIAL - 4]  # the highest frequencies of the grey plane
    assert loud.tolist() == sorted(loud.tolist())


def test_a_scene_shows_its_colour_and_only_its_first_caption_says_so() -> None:
    drawn = scenes()
    assert drawn == scenes()
    assert {scene.thing for scene in drawn} == set(THINGS)
    for scene in drawn:
        right, without, wrong = (caption.split() for caption in scene.captions)
        assert [word for word in right if word in COLOURS] == [scene.colour]
        assert not set(without) & set(COLOURS)
        assert len(set(wrong) & set(COLOURS)) == 1 and scene.colour not in wrong
        assert scene.thing in " ".join(right) and scene.thing in " ".join(wrong)
    for scene in drawn[:12]:
        pixels = np.asarray(draw(scene, a_image()), float)
        assert np.array_equal(pixels, np.asarray(draw(scene, a_image())))
        near = np.linalg.norm(pixels - np.array(COLOURS[scene.colour]), axis=-1) < 90
        assert near.mean() > 0.03


def test_no_caption_of_a_scene_is_cut() -> None:
    words = build_words([caption for scene in scenes() for caption in scene.captions], distil=False)
    _, mask = encode(words, [caption for scene in scenes() for caption in scene.captions], CAPTION + 1)
    assert int(mask.sum(1).max()) <= CAPTION
