"""Explanations say what the model does: on models whose every weight is known, the answer is known too."""

from __future__ import annotations

import dataclasses
import io
import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageFilter
from torch import Tensor, nn

from mst_clipiqa.encoders.pair import PromptTokens, encode_views
from mst_clipiqa.errors import PromptError, UsageError
from mst_clipiqa.explain import Explanation, explain
from mst_clipiqa.explain.maps import GRID, WINDOW, _filled
from mst_clipiqa.explain.overlay import RED, spread
from mst_clipiqa.explain.results import Fusion, Word, words_sentence
from mst_clipiqa.features.image_encoder import ImageEncoder
from mst_clipiqa.model.heads import PromptHead, TemplateHead
from mst_clipiqa.model.mst_clipiqa import MSTCLIPIQA, Text
from mst_clipiqa.model.mstfe import Stream
from mst_clipiqa.model.preprocess import ViewSpec, views
from mst_clipiqa.model.templates import TEMPLATES
from mst_clipiqa.model_folder import EncoderRef, ModelConfig, Target, TrainedModel
from mst_clipiqa.scoring.predictor import EMPTY_PROMPT, zero_shot_model
from mst_clipiqa.scoring.scorer import Scorer
from tests.closed_form import set_alpha
from tests.fakes import FakePair, draw
from tests.fakes import _word as word_vector

DIM = 64
PROMPT = "a blue ball on the table"


class SwappedPair(FakePair):
    """Its coarse stream sees edges."""

    def encode_chunk(self, stream: Stream, views: Tensor) -> Tensor:
        return super().encode_chunk("fine" if stream == "coarse" else "coarse", views)


@dataclass
class PiecePair(FakePair):
    """Words of more than three letters are several tokens; eight tokens are read at most, the last is the end."""

    def encode_prompts(self, prompts: list[str]) -> PromptTokens:
        cut = [" ".join(word[i : i + 3] for word in p.split() for i in range(0, len(word), 3)) for p in prompts]
        whole = super().encode_prompts([" ".join(p.split()[:6]) for p in cut])
        return replace(whole, truncated=[len(p.split()) > 6 for p in cut])


def quality_part(pair: FakePair, stream: str) -> MSTCLIPIQA:
    """Return a part that likes an image the less, the more one stream's features add up to."""
    part = MSTCLIPIQA(DIM, "template")
    bad, *_, perfect = pair.encode_templates(list(TEMPLATES))
    with torch.no_grad():
        part.gff.identity_()
        maps = {"coarse": part.gff.W_c, "fine": part.gff.W_f}
        for one in maps.values():
            one.weight.zero_()
        maps[stream].weight.copy_(bad[:, None].expand(DIM, DIM))
        maps[stream].bias.copy_(perfect)
        assert isinstance(part.head, TemplateHead)
        part.head.temperature.fill_(1.0)
    return part.eval().requires_grad_(False)


def prompt_part(colours: dict[str, float]) -> MSTCLIPIQA:
    """Return a part whose score is 3 + the mean over tokens of what each word is worth; other words are worth 0."""
    part = MSTCLIPIQA(DIM, "prompt")
    head = part.head
    assert isinstance(head, PromptHead)
    known = {**dict.fromkeys(["<start>", "<end>", *PROMPT.split()], 0.0), **colours}
    vectors = torch.stack([word_vector(word) for word in known])
    worth = torch.linalg.pinv(vectors) @ torch.tensor(list(known.values()))
    with torch.no_grad():
        part.gff.identity_()
        for one in (part.gff.W_c, part.gff.W_f):
            one.weight.zero_()
        nn.init.zeros_(head.cross_attn.in_proj_weight)  # queries and keys of zero: attention is the same everywhere
        head.cross_attn.in_proj_weight[2 * DIM :] = torch.eye(DIM)
        head.cross_attn.out_proj.weight.copy_(torch.eye(DIM))
        head.alpha.fill_(1.0)
        for linear in (head.W_1, head.W_2):
            nn.init.zeros_(linear.weight)
            nn.init.zeros_(linear.bias)
        head.W_2.weight.copy_(torch.eye(DIM))
        head.w_o.weight.copy_(worth[None])
        head.w_o.bias.fill_(3.0)
    return part.eval().requires_grad_(False)


def scorer_of(pair: FakePair, **parts: MSTCLIPIQA) -> Scorer:
    targets = {name: Target(part.kind, 0.0, 5.0) for name, part in parts.items()}
    config = ModelConfig("toy", EncoderRef("fake", pair.sha256, DIM), targets, pair.view)
    return Scorer(TrainedModel(config, parts), ImageEncoder(pair))


def distorted(column: int, row: int, size: int = 240) -> Image.Image:
    """Draw a smooth image with noise in one of 3 x 3 regions."""
    pixels = np.asarray(draw(1, 0.0, size)).copy()
    third = size // 3
    rows, columns = slice(row * third, (row + 1) * third), slice(column * third, (column + 1) * third)
    pixels[rows, columns] = np.random.default_rng(0).integers(0, 255, (third, third, 3))
    return Image.fromarray(pixels)


@pytest.mark.parametrize("native", [False, True])
@pytest.mark.parametrize(("column", "row"), [(0, 0), (2, 0), (1, 1), (0, 2), (2, 2)])
def test_the_map_finds_what_the_model_dislikes_and_in_the_right_stream(native: bool, column: int, row: int) -> None:
    spec = ViewSpec(size=96, fine="native", crops=4, crop_size=64) if native else ViewSpec(size=96)
    pair = FakePair(view=spec)
    maps = explain(scorer_of(pair, quality=quality_part(pair, "fine")), distorted(column, row)).maps["quality"]
    left, top, right, bottom = maps.worst("fine")
    # The worst window touches the region. It need not lie within: a window half distorted gains the most from a blur.
    assert left < (column + 1) / 3 and right > column / 3 and top < (row + 1) / 3 and bottom > row / 3
    if (column, row) != (1, 1):
        assert (int((left + right) / 2 * 3), int((top + bottom) / 2 * 3)) == (column, row)
    assert maps.worst("both") == maps.worst("fine")
    assert maps.fine.max() > 0.02
    assert np.abs(maps.coarse).max() < 1e-5  # this model's coarse stream has no say


def test_a_map_of_the_coarse_stream_alone() -> None:
    pair = SwappedPair(view=ViewSpec(size=96))
    maps = explain(scorer_of(pair, quality=quality_part(pair, "coarse")), distorted(0, 2)).maps["quality"]
    left, top, right, bottom = maps.worst("coarse")
    assert left + right < 2 / 3 and top + bottom > 4 / 3
    assert np.abs(maps.fine).max() < 1e-5


def test_lost_is_what_a_window_has_less_to_lose_than_the_mean() -> None:
    pair = FakePair(view=ViewSpec(size=96))
    scorer = scorer_of(pair, quality=quality_part(pair, "fine"))
    lost = explain(scorer, distorted(0, 0)).maps["quality"].fine
    assert lost.shape == (GRID, GRID) and lost.sum() == pytest.approx(0, abs=1e-4)
    small = distorted(0, 0).resize((96, 96), Image.Resampling.BICUBIC)
    file = io.BytesIO()
    small.save(file, "JPEG", quality=5)
    versions = small, small.filter(ImageFilter.GaussianBlur(4)), Image.open(file)
    # quality runs from 0 to 5: q - 1 and 5 - q are 4 / 5 of what it lies above and below the ends
    qualities = [[log_odds((score.quality or 0) * 0.8) for score in scorer(list(corners(one)))] for one in versions]
    first, last = (alone - (blurred + pressed) / 2 for alone, blurred, pressed in zip(*qualities, strict=True))
    assert lost[0, 0] - lost[-1, -1] == pytest.approx(last - first, abs=1e-4)
    assert lost[0, 0] - lost[-1, -1] > 0.05


def log_odds(above: float) -> float:
    return float(np.log((above + 0.02) / (4 - above + 0.02)))


def test_what_a_window_shows_is_what_counts_for_a_prompt() -> None:
    pair = FakePair(view=ViewSpec(size=96))
    scorer = Scorer(zero_shot_model(pair), ImageEncoder(pair))
    maps = explain(scorer, distorted(0, 0), "a fox").maps["correspondence"]
    own = scorer.encode([distorted(0, 0)])[0]
    ends = scorer.encode(list(corners(distorted(0, 0).resize((96, 96), Image.Resampling.BICUBIC))))
    for name, lost in (("f_c", maps.coarse), ("f_f", maps.fine)):
        seen = [dataclasses.replace(own, **{name: getattr(end, name)}) for end in ends]
        first, last = (score.correspondence or 0 for score in scorer.score_encoded(seen, ["a fox", "a fox"]))
        assert lost[0, 0] - lost[-1, -1] == pytest.approx(last - first, abs=1e-5)
        assert abs(last - first) > 1e-3
    together = [score.correspondence or 0 for score in scorer.score_encoded(ends, ["a fox", "a fox"])]
    change = maps.fine[0, 0] - maps.fine[-1, -1] + together[1] - together[0]
    assert maps.both[0, 0] - maps.both[-1, -1] == pytest.approx(change / 2, abs=1e-5)


def corners(image: Image.Image) -> Iterator[Image.Image]:
    """Yield the first and the last window of an image of 96 pixels, mirrored until they fill it."""
    pixels = np.asarray(image)
    for window in (pixels[:16, :16], pixels[-16:, -16:]):
        yield Image.fromarray(np.pad(window, ((0, 80), (0, 80), (0, 0)), mode="symmetric"))


def test_a_view_is_made_of_its_window_and_nothing_else() -> None:
    pixels = np.arange(60 * 90 * 3).reshape(60, 90, 3).astype(np.uint8)
    pixels[..., 0], pixels[..., 1] = np.arange(60)[:, None], np.arange(90)
    view = _filled(pixels, np.array([[0.5, 0.5, 0.7, 0.8]], np.float32), 50)[0]
    assert sorted(set(view[0].flatten().tolist())) == list(range(32, 48))  # rows 30 to 48, on the grid of 8
    assert sorted(set(view[1].flatten().tolist())) == list(range(48, 64))
    steps = view[:2].int().diff(dim=1).abs().max(), view[:2].int().diff(dim=2).abs().max()
    assert max(steps) == 1  # mirrored, so that no seam is made


@pytest.mark.parametrize("size", [(1, 1), (3, 700), (700, 3), (17, 9), (2000, 40)])
def test_any_shape_of_image_has_a_map(size: tuple[int, int]) -> None:
    pair = FakePair(view=ViewSpec(size=32, fine="native", crops=4, crop_size=32, native_side=48))
    found = explain(scorer_of(pair, quality=quality_part(pair, "fine")), Image.new("RGB", size, (90, 80, 70)))
    assert np.isfinite(found.maps["quality"].fine).all()
    assert max(found.overlay("fine", side=64).size) <= 64


def test_the_cost_is_bounded_and_told() -> None:
    pair = FakePair()
    scorer = scorer_of(pair, quality=quality_part(pair, "fine"), correspondence=prompt_part({}))
    found = explain(scorer, draw(2, 0.3, 300), PROMPT)
    assert pair.images == found.encoder_rows == 1 + 3 * GRID**2 <= 200


def test_the_score_is_the_scorers(tmp_path: Any) -> None:
    pair = FakePair()
    scorer = scorer_of(pair, quality=quality_part(pair, "fine"), correspondence=prompt_part({"blue": -2.0}))
    draw(4, 0.4).save(tmp_path / "a.png")
    assert explain(scorer, tmp_path / "a.png", PROMPT).score == scorer(tmp_path / "a.png", PROMPT)


def test_a_stream_without_a_say_has_no_share() -> None:
    pair = FakePair()
    found = explain(scorer_of(pair, quality=quality_part(pair, "coarse")), draw(5, 0.2))
    one = found.fusion["quality"]
    assert one.gate == pytest.approx(0.5) and one.gates.shape == (DIM,)
    assert one.share == pytest.approx(1)
    assert one.coarse_alone == pytest.approx(found.score.quality)  # the head looks at z's direction only
    assert one.fine_alone == pytest.approx(2.5)  # nothing to go by: five equal levels


def test_what_a_stream_alone_would_score_is_on_the_scale() -> None:
    pair = FakePair()
    part = prompt_part({})
    assert isinstance(part.head, PromptHead)
    for bias, end in ((-4.0, 0.0), (9.0, 5.0)):  # beyond both ends of 1..5
        part.head.w_o.bias.fill_(bias)
        one = explain(scorer_of(pair, correspondence=part), draw(5, 0.2), PROMPT).fusion["correspondence"]
        assert (one.coarse_alone, one.fine_alone) == (end, end)


def test_shares_are_those_of_the_formula() -> None:
    pair = FakePair()
    scorer = Scorer(zero_shot_model(pair), ImageEncoder(pair))
    found = explain(scorer, draw(6, 0.5), "a fox")
    encoded = scorer.encode([draw(6, 0.5)])[0]
    z_c, z_f = encoded.f_c / 2, encoded.f_f / 2
    want = ((z_c @ (z_c + z_f)) / ((z_c + z_f) @ (z_c + z_f))).item()
    assert found.fusion["quality"].share == found.fusion["correspondence"].share == pytest.approx(want, rel=1e-5)
    cosine = torch.cosine_similarity(z_c, pair.encode_templates(["a fox"])[0], dim=0).item()
    assert found.fusion["correspondence"].coarse_alone == pytest.approx(cosine, abs=1e-6)
    assert [word.attention for word in found.words["correspondence"]] == [None, None]


def test_effects_and_attention_are_those_of_the_formula() -> None:
    found = explain(scorer_of(FakePair(), correspondence=prompt_part({"blue": -4.0})), draw(7, 0.1), PROMPT)
    words = {word.text: word for word in found.words["correspondence"]}
    assert list(words) == PROMPT.split()
    native = 5 / 4  # the head's scale is 4 long, the target's 5
    assert words["blue"].effect == pytest.approx(native * -4 / 8, abs=1e-4)  # 6 words, a start and an end
    assert words["ball"].effect == pytest.approx(native * (-4 / 8 + 4 / 7), abs=1e-4)
    assert [word.attention for word in words.values()] == pytest.approx([1 / 8] * 6)


def test_a_word_of_many_tokens_has_the_attention_of_all_of_them() -> None:
    scorer = scorer_of(PiecePair(), correspondence=prompt_part({}))
    words = explain(scorer, draw(7, 0.1), "an elephant ran").words["correspondence"]  # an, ele pha nt, ran
    assert [word.attention for word in words] == pytest.approx([1 / 7, 3 / 7, 1 / 7])
    cut = explain(scorer, draw(7, 0.1), "an elephant followed everybody").words["correspondence"]  # 6 pieces read
    assert [word.attention for word in cut] == pytest.approx([1 / 8, 3 / 8, 2 / 8, 0])


COLOURS = {"red": (210, 30, 30), "green": (30, 160, 50), "blue": (40, 60, 210)}
THINGS = ("ball", "car", "house")


def fitted_part(pair: FakePair) -> MSTCLIPIQA:
    """Return a part fitted to tell whether the colour in the prompt is that of the image."""
    torch.manual_seed(0)
    part = MSTCLIPIQA(DIM, "prompt")
    set_alpha(part, 1.0)
    rows = [(colour, said, thing) for colour in COLOURS for said in COLOURS for thing in THINGS]
    images = torch.stack([views(plain(colour), pair.view).coarse for colour, _, _ in rows])
    f_c, f_f = (one.clone() for one in encode_views(pair, images))  # training cannot use inference tensors
    both = [[f"a {said} {thing} on the table", f"a {thing} on the table"] for _, said, thing in rows]
    texts = [pair.encode_prompts([pair_of[i] for pair_of in both]) for i in (0, 1)]
    wanted = [torch.tensor([4.5 if colour == said else 1.5 for colour, said, _ in rows]), torch.full((len(rows),), 3.0)]
    adam = torch.optim.Adam(part.parameters(), 2e-3)
    for _ in range(150):
        answers = [part(f_c, f_f, Text(tokens=text.tokens, mask=text.mask)).q for text in texts]
        loss = torch.stack([((q - y) ** 2).mean() for q, y in zip(answers, wanted, strict=True)]).sum()
        adam.zero_grad()
        loss.backward()
        adam.step()
    return part.eval().requires_grad_(False)


def plain(colour: str) -> Image.Image:
    return Image.new("RGB", (64, 64), COLOURS[colour])


def test_a_swapped_colour_word_is_found() -> None:
    pair = FakePair(view=ViewSpec(size=32))
    scorer = scorer_of(pair, correspondence=fitted_part(pair))
    for colour in COLOURS:
        for said in COLOURS:
            words = explain(scorer, plain(colour), f"a {said} ball on the table").words["correspondence"]
            effect = {word.text: word.effect for word in words}
            if said == colour:
                assert max(effect, key=lambda word: effect[word]) == said, (colour, effect)
            else:
                assert min(effect, key=lambda word: effect[word]) == said, (colour, effect)


def test_without_a_prompt_only_quality_is_explained() -> None:
    pair = FakePair()
    scorer = scorer_of(pair, quality=quality_part(pair, "fine"), correspondence=prompt_part({}))
    found = explain(scorer, draw(1, 0.0))
    assert set(found.maps) == set(found.fusion) == {"quality"}
    assert found.words == {}
    unknown = explain(scorer, draw(1, 0.0), "zzz")  # words that the text encoder does not know
    assert set(unknown.maps) == {"quality"} and unknown.words == {}
    with pytest.raises(PromptError, match=r"^Expected words in the prompt, .* or leave it out\.$") as caught:
        explain(scorer, draw(1, 0.0), "  ")
    assert str(caught.value) == f"E{EMPTY_PROMPT[1:]}."


def found_for_overlays() -> Explanation:
    pair = FakePair(view=ViewSpec(size=96))
    return explain(scorer_of(pair, quality=quality_part(pair, "fine")), distorted(2, 0))


def test_an_overlay_is_red_where_quality_is_lost_and_pale_elsewhere() -> None:
    overlay = np.asarray(found_for_overlays().overlay("fine", side=120), float)
    redness = overlay[..., 0] - overlay[..., 1:].mean(axis=2)
    assert redness[5:30, 90:115].mean() > redness[80:115, 5:30].mean() + 0.3 * (RED[0] - RED[1])


def test_a_loss_too_small_to_mean_anything_stays_pale() -> None:
    pair = FakePair(view=ViewSpec(size=96))
    found = explain(scorer_of(pair, quality=quality_part(pair, "fine")), Image.new("RGB", (96, 96), (128, 128, 128)))
    overlay = np.asarray(found.overlay("coarse")).astype(int)
    assert np.abs(overlay[40:60, 40:60] - 128).max() <= 2


def test_an_overlay_names_what_it_does_not_have() -> None:
    found = found_for_overlays()
    with pytest.raises(UsageError, match=r"Expected a map of quality, got 'quallity' .did you mean 'quality'"):
        found.overlay("fine", "quallity")
    with pytest.raises(UsageError, match=r"Expected the stream coarse, fine or both, got 'corse' .did you mean"):
        found.overlay("corse")  # type: ignore[arg-type]


def test_a_spread_map_keeps_values_and_places() -> None:
    maps = found_for_overlays().maps["quality"]
    flat = spread(np.full((GRID, GRID), 0.7, np.float32), maps.windows)
    assert flat == pytest.approx(0.7, abs=1e-5)
    one = np.zeros((GRID, GRID), np.float32)
    one[0, -1] = 1
    row, column = np.unravel_index(spread(one, maps.windows).argmax(), (64, 64))
    assert row < 64 * WINDOW and column > 64 * (1 - WINDOW)


def test_json_holds_everything() -> None:
    pair = FakePair()
    scorer = scorer_of(pair, quality=quality_part(pair, "fine"), correspondence=prompt_part({"blue": -4.0}))
    found = explain(scorer, draw(3, 0.2), PROMPT)
    data = json.loads(json.dumps(found.to_json()))
    assert data["scores"]["quality"] == pytest.approx(found.score.quality, abs=1e-5)
    assert sum(data["levels"]) == pytest.approx(1, abs=1e-4) and len(data["levels"]) == 5
    assert data["maps"]["quality"]["worst"]["fine"] == pytest.approx(found.maps["quality"].worst("fine"), abs=1e-3)
    assert np.array(data["maps"]["correspondence"]["both"]).shape == (GRID, GRID)
    assert {name: one["unit"] for name, one in data["maps"].items()} == {
        "quality": "log-odds",
        "correspondence": "points",
    }
    assert found.maps["quality"].sentence("fine", "quality").endswith(" log-odds more than in an average window.")
    assert (
        found.maps["correspondence"]
        .sentence("both", "correspondence")
        .endswith(" points more than in an average window.")
    )
    assert data["words"]["correspondence"][1]["word"] == "blue"
    assert data["fusion"]["quality"]["gate"] == pytest.approx(0.5)
    assert "isolation" in data["map_method"] and data["encoder_rows"] == found.encoder_rows


@pytest.mark.parametrize(
    ("effects", "sentence"),
    [
        ((-0.3, 0.2), "t: 'w0' lowers it most (-0.30), 'w1' raises it most (+0.20)."),
        ((-0.3, -0.1), "t: 'w0' lowers it most (-0.30); no word raises it."),
        ((0.3, 0.1), "t: 'w0' raises it most (+0.30); no word lowers it."),
        ((-0.3, 0.004), "t: 'w0' lowers it most (-0.30); no word raises it."),
        ((-0.001, 0.004), "t: no word changes it by 0.01 or more."),
    ],
)
def test_the_sentence_about_words_says_what_their_signs_say(effects: tuple[float, ...], sentence: str) -> None:
    words = [Word(f"w{place}", None, effect) for place, effect in enumerate(effects)]
    assert words_sentence("t", words) == sentence


@pytest.mark.parametrize(
    ("share", "says"),
    [
        (0.25, "25 % of the result comes from the coarse stream"),
        (1.2, "the streams pull in opposite directions, the coarse one harder"),
        (-0.2, "the streams pull in opposite directions, the fine one harder"),
    ],
)
def test_the_sentence_about_streams_names_no_share_beyond_the_whole(share: float, says: str) -> None:
    sentence = Fusion(0.5, np.zeros(1, np.float32), share, 2.0, 3.0).sentence("t")
    assert says in sentence
    said = "(the score comes from the sum of their features, so it is not the mean of these two)."
    assert f"would give 2.00 and the fine one 3.00 {said}" in sentence
