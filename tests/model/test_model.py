"""Closed forms of the trained part, and the views."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from jaxtyping import TypeCheckError
from PIL import Image

from mst_clipiqa.errors import ModelError
from mst_clipiqa.model.gff import GFF
from mst_clipiqa.model.heads import PromptHead, attend_once
from mst_clipiqa.model.loss import mst_clipiqa_loss, ranking_loss
from mst_clipiqa.model.mst_clipiqa import MSTCLIPIQA, Text, to_head, to_native, zero_shot
from mst_clipiqa.model.mstfe import MSTFE
from mst_clipiqa.model.preprocess import ViewSpec, centre_view, normalise, normalised, views
from mst_clipiqa.model.templates import TEMPLATES
from tests.closed_form import fill, parameter_count, set_alpha


def features(rows: int, dim: int = 64) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(rows, dim, generator=generator), torch.randn(rows, dim, generator=generator)


def unit_rows(rows: int, dim: int = 64) -> torch.Tensor:
    return torch.nn.functional.normalize(torch.randn(rows, dim, generator=torch.Generator().manual_seed(2)), dim=-1)


def test_equal_maps_and_features_leave_the_gate_no_say() -> None:
    gff = GFF(64)
    fill(gff, "gff.")
    gff.W_f.load_state_dict(gff.W_c.state_dict())
    f, _ = features(3)
    before = gff(f, f)[1]
    torch.nn.init.constant_(gff.W_g.bias, 5.0)
    g, after = gff(f, f)
    assert g.mean() > 0.9
    torch.testing.assert_close(before, after)


def test_a_gate_of_one_shows_only_the_coarse_stream() -> None:
    gff = GFF(64).identity_()
    torch.nn.init.constant_(gff.W_g.bias, 100.0)
    f_c, f_f = features(3)
    torch.testing.assert_close(gff(f_c, f_f)[1], f_c)


def test_zero_shot_is_the_mean_of_both_streams() -> None:
    f_c, f_f = features(3)
    out = zero_shot(64)(f_c, f_f, Text(templates=unit_rows(5)))
    torch.testing.assert_close(out.z, (f_c + f_f) / 2)
    assert out.q.min() >= 1
    assert out.q.max() <= 5


def test_equal_similarities_give_the_middle_level() -> None:
    model = MSTCLIPIQA(64, "template")
    out = model(*features(4), Text(templates=unit_rows(1).expand(5, 64)))
    torch.testing.assert_close(out.q, torch.full((4,), 3.0))


def test_without_alpha_the_prompt_does_not_matter() -> None:
    model = MSTCLIPIQA(64, "prompt")
    mask = torch.ones(2, 7, dtype=torch.bool)
    tokens = torch.randn(2, 7, 64, generator=torch.Generator().manual_seed(3))
    one = model(*features(2), Text(tokens=tokens, mask=mask)).q
    torch.testing.assert_close(one, model(*features(2), Text(tokens=-tokens, mask=mask)).q)
    set_alpha(model, 0.5)
    assert not torch.allclose(one, model(*features(2), Text(tokens=-tokens, mask=mask)).q)


def test_padding_is_not_attended_to() -> None:
    model = MSTCLIPIQA(64, "prompt")
    fill(model)
    tokens = torch.randn(2, 7, 64, generator=torch.Generator().manual_seed(3))
    mask = torch.arange(7).expand(2, 7) < torch.tensor([[3], [7]])
    garbage = torch.where(mask.unsqueeze(-1), tokens, 1e4)
    out = model(*features(2), Text(tokens=garbage, mask=mask))
    torch.testing.assert_close(out.q, model(*features(2), Text(tokens=tokens, mask=mask)).q)
    assert (out.attention[0, 3:] == 0).all()
    torch.testing.assert_close(out.attention.sum(dim=1), torch.ones(2))


def test_counts_of_the_paper() -> None:
    assert [parameter_count(MSTCLIPIQA(512, head)) for head in ("template", "prompt")] == [722_561, 2_299_010]


def test_templates_are_the_five_levels() -> None:
    assert len(TEMPLATES) == 5
    assert TEMPLATES[0] == "a photo with bad quality"
    assert TEMPLATES[-1] == "a photo with perfect quality"


def test_ranking_loss_by_hand() -> None:
    q, y = torch.tensor([1.0, 2.0, 2.0]), torch.tensor([3.0, 1.0, 1.0])
    # Pairs (0, 1) and (0, 2) differ, both ways round: 4 hinges of 1.1; the tie (1, 2) does not count.
    torch.testing.assert_close(ranking_loss(q, y), torch.tensor(1.1))
    torch.testing.assert_close(mst_clipiqa_loss(q, y), torch.tensor(6.0 / 3 + 1.1))
    assert ranking_loss(q, torch.ones(3)) == 0


def test_native_units_round_trip() -> None:
    y = torch.tensor([26.6, 49.9, 72.1])
    torch.testing.assert_close(to_native(to_head(y, 0, 100), 0, 100), y)
    assert to_native(torch.tensor([1.0, 5.0]), 0.0, 5.0).tolist() == [0.0, 5.0]


def test_what_cannot_be_built_says_so() -> None:
    with pytest.raises(ModelError, match="Expected head 'template' or 'prompt', got 'tempalte'"):
        MSTCLIPIQA(64, "tempalte")  # type: ignore[arg-type]
    with pytest.raises(ModelError, match="8 attention heads can share, got 60"):
        MSTCLIPIQA(60, "prompt")
    with pytest.raises(ModelError, match="Expected template embeddings"):
        MSTCLIPIQA(64, "template")(*features(1), Text())
    with pytest.raises(ModelError, match="square number of crops"):
        ViewSpec(fine="native", crops=3)


def drawn(width: int, height: int) -> Image.Image:
    rng = np.random.default_rng(width * 10_000 + height)
    return Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8))


@pytest.mark.parametrize("size", [(512, 512), (640, 427), (427, 641), (224, 224), (300, 225), (225, 300), (50, 37)])
def test_the_paper_view_is_clips_own(size: tuple[int, int]) -> None:
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    image = drawn(*size)
    want = CLIPImageProcessorPil()(image, return_tensors="pt")["pixel_values"][0]
    got = normalise(views(image, ViewSpec()).coarse, ViewSpec())
    torch.testing.assert_close(got, want, atol=1e-5, rtol=0)


def test_a_gap_averages_blocks_first() -> None:
    ramp = Image.fromarray(np.linspace(0, 255, 480).astype(np.uint8)[None, :, None].repeat(480, 0).repeat(3, 2))
    plain, fast = (centre_view(ramp, 120, gap) for gap in (None, 1.0))
    assert np.abs(np.asarray(plain).astype(int) - np.asarray(fast)).max() <= 2
    noise = drawn(480, 480)
    blocks = np.asarray(noise, float).reshape(120, 4, 120, 4, 3).mean((1, 3))
    assert np.abs(np.asarray(centre_view(noise, 120, 1.0)) - blocks).max() <= 0.51
    assert centre_view(drawn(100, 90), 120, 1.0).size == (120, 120)  # nothing to average in a small one


@pytest.mark.parametrize("size", [(1, 5000), (5000, 1), (1, 1), (3, 100_000)])
def test_extreme_shapes_have_views(size: tuple[int, int]) -> None:
    spec = ViewSpec(fine="native", crops=4)
    seen = views(drawn(*size), spec)
    assert seen.coarse.shape == (3, 224, 224)
    assert seen.fine is not None
    assert seen.fine.shape == (4, 3, 224, 224)


def test_a_strip_is_resized_as_any_other_image() -> None:
    column = np.linspace(0, 255, 224 * 20).astype(np.uint8)
    strip = Image.fromarray(np.repeat(column[:, None, None], 224, axis=1).repeat(3, axis=2))
    middle = np.asarray(centre_view(strip, 224)).astype(int)
    want = np.asarray(strip)[(20 * 224 - 224) // 2 :][:224].astype(int)
    assert np.abs(middle - want).max() <= 1


def test_native_crops_are_the_images_own_pixels() -> None:
    image = drawn(512, 400)
    fine = views(image, ViewSpec(fine="native", crops=4)).fine
    assert fine is not None
    pixels = np.asarray(image).transpose(2, 0, 1)
    np.testing.assert_array_equal(fine[0], pixels[:, :224, :224])
    np.testing.assert_array_equal(fine[3], pixels[:, -224:, -224:])
    small = views(drawn(100, 80), ViewSpec(fine="native", crops=4)).fine
    assert small is not None
    assert small.shape == (4, 3, 224, 224)


def test_native_side_caps_what_is_cropped() -> None:
    image = drawn(1024, 1024)
    spec = ViewSpec(fine="native", crops=1, native_side=512)
    fine = views(image, spec).fine
    assert fine is not None
    shrunk = image.resize((512, 512), Image.Resampling.BICUBIC).crop((144, 144, 368, 368))
    np.testing.assert_array_equal(fine[0], np.asarray(shrunk).transpose(2, 0, 1))


def test_attending_once_is_multi_head_attention() -> None:
    head = PromptHead(64)
    fill(head, "head.")
    z = features(3)[0]
    tokens = torch.randn(3, 7, 64, generator=torch.Generator().manual_seed(3))
    mask = torch.arange(7).expand(3, 7) < torch.tensor([[3], [7], [1]])
    want, weights = head.cross_attn(z.unsqueeze(1), tokens, tokens, key_padding_mask=~mask)
    got, attention = attend_once(head.cross_attn, z, tokens, mask)
    torch.testing.assert_close(got, want.squeeze(1), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(attention, weights.squeeze(1), atol=1e-6, rtol=1e-5)


def test_shapes_are_checked_while_tests_run() -> None:
    q, y = torch.zeros(3), torch.zeros(3, 1)  # without a check they broadcast, and the loss is of nine pairs
    with pytest.raises(TypeCheckError):
        mst_clipiqa_loss(q, y)
    with pytest.raises(TypeCheckError):
        Text(tokens=torch.zeros(2, 7, 8), mask=torch.ones(2, 6, dtype=torch.bool))
    with pytest.raises(TypeCheckError):
        normalise(torch.zeros(3, 8, 8), ViewSpec())  # not uint8


def test_both_ways_to_normalise_give_the_same_pixels() -> None:
    every = torch.arange(256, dtype=torch.uint8).expand(2, 3, 2, 256)
    spec = ViewSpec(mean=(0.1, 0.4, 0.6), std=(0.2, 0.3, 0.5))
    torch.testing.assert_close(normalised(every, spec, torch.float32), normalise(every, spec), atol=2e-6, rtol=0)


class MeanColour(torch.nn.Module):
    """An encoder of one batch of images: the mean of each channel, times a factor."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        assert pixels.ndim == 4
        return self.factor * pixels.mean(dim=(2, 3))


def test_features_are_the_mean_over_the_crops_of_each_image() -> None:
    mstfe, spec = MSTFE(MeanColour(1.0), MeanColour(-2.0), ViewSpec()), ViewSpec()
    crops = torch.randint(0, 256, (2, 4, 3, 5, 5), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    want = normalise(crops, spec).mean(dim=(1, 3, 4))
    torch.testing.assert_close(mstfe("coarse", crops), want, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(mstfe("fine", crops), -2 * want, atol=1e-5, rtol=1e-5)
    one = normalise(crops[:, 0], spec).mean(dim=(2, 3))
    torch.testing.assert_close(mstfe("coarse", crops[:, 0]), one, atol=1e-5, rtol=1e-5)
