"""What generators write into their files is read, whichever generator it was, and nothing that is written does harm."""

from __future__ import annotations

import io
import json
import struct
import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fuzz.metadata import COMFYUI, LINES, in_alpha, node, png, saved, seeds, utf16, with_exif
from mst_clipiqa.errors import ImageError
from mst_clipiqa.images.alpha_text import alpha_text
from mst_clipiqa.images.texts import MOST_TEXT, read_texts
from mst_clipiqa.inputs.generation import generation_of_text, read_generation
from mst_clipiqa.inputs.generation_fields import Generation
from mst_clipiqa.inputs.prompt_syntax import without_syntax

BALL = "a (red:1.3) ball on a table <lora:x:0.8>"
A1111 = (BALL, "blurry,\nbad", 1234567890, 20, "DPM++ 2M", 7.5, "sd", (512, 768), "AUTOMATIC1111")
COMFY = ("a red ball on a table", "blurry", 5, 20, "euler", 7.0, "sd", (512, 768), "ComfyUI")
NAI = ("a girl, red hair", "lowres", 77, 28, "k_euler", 5.0, "NovelAI V4", (832, 1216), "NovelAI")
FOOOCUS = ("a cat", "blurry", 123, 30, "dpmpp_2m_sde_gpu", 4.0, "juggernaut", (1152, 896), "Fooocus")
FOUND = {
    **{name: A1111 for name in seeds() if name.startswith("AUTOMATIC1111")},
    **dict.fromkeys(("little endian", "with a byte order mark", "ASCII", "no character set"), A1111),
    **dict.fromkeys(("a comment in GIF", "a comment in JPEG"), A1111),
    **dict.fromkeys(("ComfyUI", "ComfyUI in WebP", "ComfyUI in a user comment"), COMFY),
    "ComfyUI with a guider": ("a fox", None, 99, 4, "euler", 3.5, "flux1", (1024, 1024), "ComfyUI"),
    "NovelAI": NAI,
    "NovelAI in WebP": NAI,
    "NovelAI in the alpha channel": NAI,
    "Fooocus": FOOOCUS,
    "Fooocus in JPEG": FOOOCUS,
    "InvokeAI": ("a hat", "ugly", 1, 30, "euler", 7.5, "sd15", (512, 640), "InvokeAI"),
    "InvokeAI 2": ("a hat", "ugly", 3, 50, "k_lms", 7.5, "sd15", (512, 512), "InvokeAI"),
    "InvokeAI 1": ("a hat", "ugly", 3, 50, "k_lms", 7.5, None, (512, 512), "InvokeAI"),
    "SwarmUI": ("a boat", None, 3, 4, "euler", 1.0, "flux", (512, 512), "SwarmUI"),
    "fields by name": ("a hen", None, 4, 25, None, 7.5, None, None, ""),
}


def told(found: Generation | None) -> tuple[object, ...]:
    assert found is not None
    first = (found.prompt, found.negative_prompt, found.seed, found.steps, found.sampler)
    return (*first, found.cfg_scale, found.model, found.size, found.software)


@pytest.mark.parametrize("name", seeds())
def test_every_generator_from_bytes_and_from_a_file(name: str, tmp_path: Path) -> None:
    file = tmp_path / "a.png"
    file.write_bytes(seeds()[name])
    assert told(read_generation(file)) == told(read_generation(seeds()[name])) == FOUND[name]


def test_damaged_text_in_an_alpha_channel_is_none() -> None:
    whole = Image.open(io.BytesIO(in_alpha(LINES, packed=False))).convert("RGBA")
    assert alpha_text(in_alpha(LINES, packed=False)) == LINES
    for at in (0, 3, 124):  # in the name, and in the length, which then is longer than the image
        broken = whole.copy()
        place = divmod(at, broken.height)
        channels = np.asarray(broken).copy()
        channels[place[1], place[0], 3] ^= 1
        broken = Image.fromarray(channels)
        assert alpha_text(saved(broken, "PNG")) is None
    assert alpha_text(saved(whole.convert("RGB"), "PNG")) is None
    assert alpha_text(saved(Image.new("RGBA", (4, 4)), "PNG")) is None
    assert len(alpha_text(in_alpha("a" * 10_000_000)) or "") == 4 * 2**20  # a bomb unpacks to no more than it may


def test_the_texts_are_kept_as_they_were_found() -> None:
    found = read_generation(png(parameters=LINES, other="x"))
    assert found is not None and found.raw == {"parameters": LINES, "other": "x"}


def test_files_that_say_nothing() -> None:
    assert read_generation(png()) is None
    assert read_generation(png(parameters="")) is None
    assert read_generation(with_exif("JPEG", b"ASCII\0\0\0a holiday by the sea")) is None
    assert read_generation(png(Comment="Created with GIMP", Software="x")) is None


def test_a_file_that_is_no_image(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="got bytes that are none of these"):
        read_generation(b"not an image")
    with pytest.raises(ImageError, match="found no file of this name"):
        read_generation(tmp_path / "a.png")


# --- AUTOMATIC1111 -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "prompt", "negative", "steps"),
    [
        ("a cat\nSteps: 4, Sampler: E, Seed: 1", "a cat", None, 4),
        ("a cat\nand a dog\nNegative prompt: x\nSteps: 4, Sampler: E, Seed: 1", "a cat\nand a dog", "x", 4),
        ("a cat\nSteps: 4, Sampler: E, Seed: 1\nTemplate: a {cat|dog}", "a cat", None, 4),
        ("Steps: up we go\nNegative prompt: x\nSteps: 4, Sampler: E, Seed: 1", "Steps: up we go", "x", 4),
        ("a cat", "a cat", None, None),
        ("a cat\nNegative prompt: x", "a cat", "x", None),
        ('a cat\nSteps: 4, Hashes: {"a": 1, "b": 2}, Seed: 1', "a cat", None, 4),
        ("Negative prompt: x\nSteps: 4, Sampler: E, Seed: 1", None, "x", 4),
    ],
)
def test_lines(text: str, prompt: str | None, negative: str | None, steps: int | None) -> None:
    found = read_generation(png(parameters=text))
    assert found is not None
    assert (found.prompt, found.negative_prompt, found.steps) == (prompt, negative, steps)


def test_settings_in_quotes_hold_commas() -> None:
    found = read_generation(png(parameters='a\nSteps: 4, Sampler: E, TI: "Seed: 9, Model: y", Seed: 1, Model: z'))
    assert found is not None and (found.seed, found.model) == (1, "z")


def test_a_text_beside_an_image() -> None:
    assert told(generation_of_text(LINES)) == A1111
    assert told(generation_of_text('{"caption": "a hen"}'))[0] == "a hen"
    assert generation_of_text("a red ball") is None


# --- ComfyUI -------------------------------------------------------------------------------------------------


def prompts(graph: Mapping[str, object]) -> tuple[str | None, str | None] | None:
    found = read_generation(png(prompt=json.dumps(graph)))
    return (found.prompt, found.negative_prompt) if found else None


def test_a_node_that_passes_both_sides_on() -> None:
    between = node("ControlNetApplyAdvanced", positive=["6", 0], negative=["7", 0], image=["40", 0], strength=1)
    sampler = COMFYUI["3"]["inputs"] | {"positive": ["20", 0], "negative": ["20", 1]}
    assert prompts(COMFYUI | {"20": between, "3": node("KSampler", **sampler)}) == ("a red ball on a table", "blurry")


def test_a_loader_that_holds_both_prompts() -> None:
    loader = node("Efficient Loader", ckpt_name="m", positive="a dog", negative="worse")
    sampler = node("KSampler (Efficient)", positive=["1", 1], negative=["1", 2], latent_image=["1", 3], steps=5)
    assert prompts({"1": loader, "2": sampler}) == ("a dog", "worse")


def test_the_sampler_nearest_to_the_saved_image_counts() -> None:
    first = node("KSampler", positive=["7", 0], negative=["6", 0], latent_image=["5", 0], steps=1)
    assert prompts({"0": first} | COMFYUI) == ("a red ball on a table", "blurry")


def test_two_encoders_and_equal_texts() -> None:
    double = node("CLIPTextEncodeSDXL", text_g="a red ball", text_l="a red ball")
    assert prompts(COMFYUI | {"6": double}) == ("a red ball", "blurry")
    combined = node("ConditioningCombine", conditioning_1=["6", 0], conditioning_2=["31", 0])
    sampler = COMFYUI["3"]["inputs"] | {"positive": ["30", 0]}
    graph = COMFYUI | {"30": combined, "31": node("CLIPTextEncode", text="at night"), "3": node("K", **sampler)}
    assert prompts(graph) == ("a red ball on a table, at night", "blurry")


def test_settings_from_nodes_that_only_hold_one() -> None:
    sampler = COMFYUI["3"]["inputs"] | {"seed": ["50", 0], "steps": ["51", 0]}
    graph = COMFYUI | {"3": node("KSampler", **sampler), "50": node("Seed", seed=8), "51": node("Int", value=9)}
    found = read_generation(png(prompt=json.dumps(graph)))
    assert found is not None and (found.seed, found.steps) == (8, 9)


def test_words_on_the_way_to_the_weights_are_not_the_prompt() -> None:
    loader = node("LoraLoader", text="trigger words", clip=["4", 1])
    graph = COMFYUI | {"6": node("CLIPTextEncode", text="", clip=["60", 0]), "60": loader}
    assert prompts(graph) == (None, "blurry")


@pytest.mark.parametrize("graph", [[], {"1": 1}, {"1": {"inputs": []}}, {"1": {"inputs": {"positive": ["1", 0]}}}])
def test_graphs_that_are_none(graph: object) -> None:
    assert read_generation(png(prompt=json.dumps(graph))) is None


def test_circles_and_depth() -> None:
    many = 15_000
    chain = {str(i): node("X", positive=[str((i + 1) % many), 0], latent_image=["0", 0]) for i in range(many)}
    assert read_generation(png(prompt=json.dumps(chain))) is None
    chain[str(many - 1)] = node("CLIPTextEncode", text="at the end")
    assert prompts(chain) == ("at the end", None)


# --- hostile -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text", ["[" * 10**6, '{"prompt":' * 10**5, '{"seed": ' + "9" * 10**5 + "}", "{" + " " * 10**6]
)
@pytest.mark.usefixtures("no_collection")
def test_json_that_is_deep_or_endless(text: str) -> None:
    assert read_generation(png(prompt=text)) is None


@pytest.mark.parametrize(
    "number", ["1e999", "NaN", "Infinity", str(2**70), "true", '"1' + "0" * 50 + '"', "[1]", '"x"']
)
def test_numbers_that_make_no_sense_are_left_out(number: str) -> None:
    text = f'{{"prompt": "a", "base_model": "m", "steps": {number}, "guidance_scale": {number}}}'
    found = read_generation(png(parameters=text))
    assert found is not None and found.prompt == "a"
    assert found.steps is None and found.cfg_scale is None


def test_large_seeds_are_exact() -> None:
    found = read_generation(png(parameters=f"a\nSteps: 1, Sampler: E, Seed: {2**63 + 1}"))
    assert found is not None and found.seed == 2**63 + 1
    found = read_generation(png(parameters=f'{{"prompt": "a", "seed": {2**63 + 1}}}'))
    assert found is not None and found.seed == 2**63 + 1


def test_text_is_valid_unicode() -> None:
    found = read_generation(png(parameters=r'{"prompt": "a \ud800 b\u0000"}'))
    assert found is not None and found.prompt == "a ? b"


def bomb(data: bytes) -> bytes:
    chunk = b"parameters\0\0" + data
    plain = png()
    inner = struct.pack(">I", len(chunk)) + b"zTXt" + chunk + struct.pack(">I", zlib.crc32(b"zTXt" + chunk))
    return plain[:33] + inner + plain[33:]


def test_texts_are_bounded_each_and_in_all() -> None:
    assert read_texts(bomb(zlib.compress(b"x" * 1000))) == {"parameters": "x" * 1000}
    assert read_texts(bomb(zlib.compress(bytes(MOST_TEXT + 1)))) == {}
    assert read_texts(bomb(b"not compressed")) == {}
    half = "x" * (MOST_TEXT // 2)
    assert list(read_texts(png(a=half, bb=half, ccc="y"))) == ["a", "bb"]


def test_a_text_over_the_limit_of_pillow_is_read() -> None:
    found = read_generation(bomb(zlib.compress(LINES.encode() + b"\n" + b"x" * 2_000_000)))
    assert told(found) == A1111


def test_damaged_exif_and_chunks_are_left_out() -> None:
    whole = with_exif("JPEG", utf16(LINES))
    for cut in range(0, len(whole), 37):
        read_texts(whole[: max(cut, 12)])
    assert read_texts(png(a="1")[:40]) == {}


# --- the syntax of prompts -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("prompt", "words", "removed"),
    [
        ("a (red:1.3) ball <lora:x:0.8>", "a red ball", ["tags", "weights"]),
        ("((masterpiece)), a [[quiet]] lake, {{fog}}", "masterpiece, a quiet lake, fog", ["weights"]),
        ("((a:1.2) cat:0.9)", "a cat", ["weights"]),
        ("a cat BREAK at night", "a cat, at night", ["BREAK"]),
        ("[cat:dog:0.5] on a sofa", "dog on a sofa", ["weights"]),
        ("1.3::red::, a ball", "red, a ball", ["weights"]),
        (r"foo \(bar\) (x:1.1)", "foo (bar) x", ["weights"]),
        ("a dog. Negative prompt: ugly\nSteps: 20, Sampler: E, Seed: 1", "a dog.", ["a negative prompt"]),
        ("embedding:easyneg, a cat, <lyco:y>", "a cat", ["tags"]),
        ("<lora:x:1>", "", ["tags"]),
    ],
)
def test_syntax_is_removed_and_named(prompt: str, words: str, removed: list[str]) -> None:
    assert without_syntax(prompt) == (words, removed)


@pytest.mark.parametrize(
    "prompt",
    [
        "a cat (orange) at (10:30), ratio (16:9)",
        "",
        "  two  spaces , kept ",
        "a sign that says [OPEN]",
        "the negative prompt is short",
        "break BREAKFAST",
        'a man said: "5:1"',
        r"C:\(x\)",
        "f(x) = {y} < 3 > 2",
        "x" * 30_000 + "(a:1.2)",
    ],
)
def test_language_is_left_as_it_is(prompt: str) -> None:
    assert without_syntax(prompt) == (prompt, [])
