"""Inputs as people have them -> the rows that they get: one line of the table per case."""

from __future__ import annotations

import base64
import io
import json
import struct
import zlib
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pytest
import torch
from PIL import Image

from fuzz.metadata import COMFYUI, LINES, png, seeds
from mst_clipiqa.analysis.rank import rank
from mst_clipiqa.errors import UsageError
from mst_clipiqa.features.cache import Cache
from mst_clipiqa.features.image_encoder import ImageEncoder
from mst_clipiqa.images.options import OpenOptions
from mst_clipiqa.inputs.each_frame import each_frame
from mst_clipiqa.inputs.expand import expand
from mst_clipiqa.scoring.metadata_columns import metadata_row
from mst_clipiqa.scoring.predictor import zero_shot_model
from mst_clipiqa.scoring.resume import STAMP
from mst_clipiqa.scoring.score import Score
from mst_clipiqa.scoring.score_rows import score_rows
from mst_clipiqa.scoring.scorer import Scorer
from tests.fakes import FakePair
from tests.images.test_colour import p3

NOISE = np.random.default_rng(0).integers(0, 256, (32, 48, 3), dtype=np.uint8)
IMAGE = Image.fromarray(NOISE)


def saved(kind: str = "PNG", image: Image.Image = IMAGE, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def with_chunk(name: bytes, data: bytes) -> bytes:
    plain = saved()
    made = struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
    return plain[:33] + made + plain[33:]


def animated(kind: str) -> bytes:
    others = [Image.fromarray(np.roll(NOISE, 7 * i, axis=1)) for i in (1, 2)]
    return saved(kind, save_all=True, append_images=others)


PNG = saved()
JPEG = saved("JPEG")
FRAMES = "frame 1 of 3"
OK, ERROR = "ok", "error"
BALL = "a red ball on a table"

Expected: TypeAlias = tuple[str, str | None, str, str]  # file, prompt, status, part of the reason


def ok(file: str, prompt: str | None = None, *, reason: str = "") -> Expected:
    return file, prompt, OK, reason


def bad(file: str, reason: str) -> Expected:
    return file, None, ERROR, reason


# name: (files, what is read of them and how, expected rows, part of a note)
CASES: dict[str, tuple[dict[str, bytes], dict[str, Any], list[Expected], str]] = {
    # formats
    "PNG": ({"a.png": PNG}, {}, [ok("a.png")], ""),
    "JPEG": ({"a.jpg": JPEG}, {}, [ok("a.jpg")], ""),
    "WebP": ({"a.webp": saved("WEBP")}, {}, [ok("a.webp")], ""),
    "AVIF": ({"a.avif": saved("AVIF")}, {}, [ok("a.avif")], ""),
    "TIFF": ({"a.tif": saved("TIFF")}, {}, [ok("a.tif")], ""),
    "BMP": ({"a.bmp": saved("BMP")}, {}, [ok("a.bmp")], ""),
    "GIF": ({"a.gif": saved("GIF")}, {}, [ok("a.gif")], ""),
    "a JPEG that is called .pjpeg": ({"a.pjpeg": JPEG}, {}, [ok("a.pjpeg")], ""),
    "a PNG that is called .apng": ({"a.apng": PNG}, {}, [ok("a.apng")], ""),
    "a WebP that is called .jpg": ({"a.jpg": saved("WEBP")}, {}, [ok("a.jpg")], ""),
    "no ending": ({"a": JPEG, "b.png": PNG}, {}, [ok("a"), ok("b.png")], ""),
    "CMYK": ({"a.jpg": saved("JPEG", IMAGE.convert("CMYK"))}, {}, [ok("a.jpg")], ""),
    "MPO": ({"a.mpo": JPEG}, {}, [ok("a.mpo")], ""),
    "PPM": ({"a.ppm": saved("PPM")}, {}, [bad("a.ppm", "got a PPM, PGM or PBM image: save it")], ""),
    "JPEG 2000": ({"a.jp2": saved("JPEG2000")}, {}, [bad("a.jp2", "got a JPEG 2000 image")], ""),
    "TGA": ({"a.tga": saved("TGA")}, {}, [bad("a.tga", "got bytes that are none of these")], ""),
    "DDS": ({"a.dds": saved("DDS")}, {}, [bad("a.dds", "got a DDS texture")], ""),
    "Photoshop": ({"a.psd": b"8BPS\0\1" + bytes(60)}, {}, [bad("a.psd", "got a Photoshop document")], ""),
    "RAW": (
        {"a.cr2": b"II*\0\x10\0\0\0CR\2\0" + bytes(60)},
        {},
        [bad("a.cr2", "got a raw photograph: develop it")],
        "",
    ),
    "broken HEIC": ({"a.heic": b"\0\0\0\x18ftypheic" + bytes(60)}, {}, [bad("a.heic", "HEIC image")], ""),
    "broken JPEG XL": ({"a.jxl": b"\xff\x0a" + bytes(3)}, {}, [bad("a.jxl", "JPEG XL image")], ""),
    # what is no image
    "a JSON error": (
        {"a.png": b'{"error": "busy"}'},
        {},
        [bad("a.png", "got JSON text, such as an error")],
        "",
    ),
    "base64": (
        {"a.png": base64.b64encode(PNG)},
        {},
        [bad("a.png", "got an image as base64 text: decode")],
        "",
    ),
    "a data URI": (
        {"a.png": b"data:image/png;base64," + base64.b64encode(PNG)},
        {},
        [bad("a.png", "got a data URI, which is text: decode it first")],
        "",
    ),
    "an LFS pointer": (
        {"a.png": b"version https://git-lfs.github.com/spec/v1\noid sha256:0"},
        {},
        [bad("a.png", "fetch the image with git lfs pull")],
        "",
    ),
    "a web page": (
        {"a.png": b"\xef\xbb\xbf<!DOCTYPE html>"},
        {},
        [bad("a.png", "got a web page: download the image itself")],
        "",
    ),
    "a video": ({"a.png": b"\0\0\0\x18ftypisom" + bytes(60)}, {}, [bad("a.png", "got a video")], ""),
    "cut off": ({"a.jpg": JPEG[: len(JPEG) // 2]}, {}, [bad("a.jpg", "ends too early")], ""),
    "empty": ({"a.png": b""}, {}, [bad("a.png", "got nothing (0 bytes)")], ""),
    "other files": (
        {"a.png": PNG, "notes.txt": b"x", "run.log": b"x"},
        {},
        [ok("a.png")],
        "2 files that are not images were left out (the first: 'd/notes.txt').",
    ),
    # metadata that is too large or broken
    "a workflow of two megabytes": (
        {"a.png": with_chunk(b"zTXt", b"workflow\0\0" + zlib.compress(b"x" * 2_000_000))},
        {},
        [ok("a.png")],
        "",
    ),
    "a broken gAMA": ({"a.png": with_chunk(b"gAMA", b"\0")}, {}, [ok("a.png")], ""),
    "a broken pHYs": ({"a.png": with_chunk(b"pHYs", b"\0")}, {}, [ok("a.png")], ""),
    "a broken tRNS": (
        {"a.png": with_chunk(b"tRNS", b"\0")},
        {},
        [ok("a.png", reason="its transparency is damaged and was left out")],
        "",
    ),
    "a broken profile": (
        {"a.png": with_chunk(b"iCCP", b"x\0\0nonsense")},
        {},
        [ok("a.png", reason="its colour profile cannot be used")],
        "",
    ),
    "a profile": ({"a.png": saved(icc_profile=p3())}, {}, [ok("a.png")], ""),
    # frames, and images that hold little
    "an animated GIF": ({"a.gif": animated("GIF")}, {}, [ok("a.gif", reason=FRAMES)], ""),
    "an animated WebP": ({"a.webp": animated("WEBP")}, {}, [ok("a.webp", reason=FRAMES)], ""),
    "an animated PNG": ({"a.png": animated("PNG")}, {}, [ok("a.png", reason=FRAMES)], ""),
    "an animated AVIF": ({"a.avif": animated("AVIF")}, {}, [ok("a.avif", reason=FRAMES)], ""),
    "each frame": (
        {"a.gif": animated("GIF"), "b.png": PNG},
        {"frames": True},
        [ok("a.gif", reason=f"frame {i} of 3") for i in (1, 2, 3)] + [ok("b.png")],
        "",
    ),
    "tiny": ({"a.png": saved(image=IMAGE.crop((0, 0, 3, 2)))}, {}, [ok("a.png", reason="only 3 x 2 pixels")], ""),
    "one colour": (
        {"a.png": saved(image=Image.new("RGB", (32, 32)))},
        {},
        [ok("a.png", reason="one flat colour")],
        "",
    ),
    "transparent": (
        {"a.png": saved(image=Image.new("RGBA", (32, 32)))},
        {},
        [ok("a.png", reason="wholly transparent")],
        "",
    ),
    # prompts in the file
    **{
        name: ({"a.png": seeds()[name]}, {"prompts_from": "metadata"}, [ok("a.png", prompt)], "")
        for name, prompt in (
            ("AUTOMATIC1111 in PNG", "a (red:1.3) ball on a table <lora:x:0.8>"),
            ("AUTOMATIC1111 in JPEG", "a (red:1.3) ball on a table <lora:x:0.8>"),
            ("AUTOMATIC1111 in WebP", "a (red:1.3) ball on a table <lora:x:0.8>"),
            ("ComfyUI", BALL),
            ("ComfyUI in WebP", BALL),
            ("InvokeAI", "a hat"),
            ("NovelAI", "a girl, red hair"),
            ("Fooocus", "a cat"),
            ("SwarmUI", "a boat"),
        )
    },
    "a prompt's syntax": (
        {"a.png": png(parameters=LINES)},
        {"prompts_from": "metadata"},
        [ok("a.png", "a (red:1.3) ball on a table <lora:x:0.8>", reason="read without its syntax: tags, weights")],
        "",
    ),
    "unread metadata": (
        {"a.png": png(prompt=json.dumps(COMFYUI))},
        {},
        [ok("a.png")],
        "--prompts-from metadata",
    ),
    # prompts beside the file
    "a text beside it": (
        {"1.png": PNG, "1.txt": b"a hen"},
        {"prompts_from": "sidecar"},
        [ok("1.png", "a hen")],
        "",
    ),
    "a caption beside it": (
        {"1.png": PNG, "1.caption": b"a hen"},
        {"prompts_from": "sidecar"},
        [ok("1.png", "a hen")],
        "",
    ),
    "JSON beside it": (
        {"1.png": PNG, "1.json": b'{"caption": "a hen"}'},
        {"prompts_from": "sidecar"},
        [ok("1.png", "a hen")],
        "",
    ),
    "AUTOMATIC1111's text beside it": (
        {"1.png": PNG, "1.txt": LINES.encode()},
        {"prompts_from": "sidecar"},
        [ok("1.png", "a (red:1.3) ball on a table <lora:x:0.8>")],
        "",
    ),
    "unread texts": ({"1.png": PNG, "1.txt": b"a hen"}, {}, [ok("1.png")], "--prompts-from sidecar"),
    "the file's name": (
        {"a green bench_000000.png": PNG},
        {"prompts_from": "name"},
        [ok("a green bench_000000.png", "a green bench")],
        "",
    ),
    "the folder's name": ({"a_hen/1.png": PNG}, {"prompts_from": "folder"}, [ok("a_hen/1.png", "a hen")], ""),
    # lists of prompts
    "an unread list": (
        {"1.png": PNG, "prompts.csv": b"file,prompt\n1.png,a hen\n"},
        {},
        [ok("1.png")],
        "'prompts.csv' is in 'd' and was not read: --prompts d/prompts.csv",
    ),
    "metadata.csv": (
        {"1.png": PNG, "metadata.csv": b"file_name,text\n1.png,a hen\n"},
        {},
        [ok("1.png", "a hen")],
        "",
    ),
    "metadata.jsonl in the parent": (
        {"../metadata.jsonl": b'{"file_name": "d/1.png", "text": "a hen"}\n', "1.png": PNG},
        {},
        [ok("1.png", "a hen")],
        "",
    ),
    **{
        f"a list: {name}": (
            {file: PNG, f"../{title}": text.encode()},
            {"prompts": title},
            [ok(file, "a hen")],
            "",
        )
        for name, file, title, text in (
            ("file to text", "a.png", "p.json", '{"a.png": "a hen"}'),
            ("file to object", "a.png", "p.json", '{"a.png": {"prompt": "a hen", "seed": 1}}'),
            ("objects", "a.png", "p.json", '[{"file": "a.png", "prompt": "a hen"}]'),
            ("id to object with a file", "a.png", "p.json", '{"7": {"filename": "a.png", "caption": "a hen"}}'),
            ("DiffusionDB", "ec9b.png", "p.json", '{"ec9b.png": {"p": "a hen", "se": 3, "c": 7.0, "st": 50}}'),
            ("GenAI-Bench", "00001.jpg", "p.json", '{"00001": {"id": "00001", "prompt": "a hen", "models": {}}}'),
            ("ImageReward", "864.png", "p.json", '[{"id": "0000864", "prompt": "a hen"}]'),
            ("HPSv2", "00001.jpg", "p.json", '["a dog", "a hen"]'),
            ("PartiPrompts", "1.png", "p.tsv", "Prompt\tCategory\tChallenge\tNote\na dog\tA\tB\tC\na hen\tA\tB\tC\n"),
        )
    },
}


@pytest.fixture(scope="module")
def scorer() -> Scorer:
    pair = FakePair()
    return Scorer(zero_shot_model(pair), ImageEncoder(pair, batch_size=4))


def write(folder: Path, files: dict[str, bytes]) -> None:
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)


@pytest.mark.parametrize("name", CASES)
def test_what_people_have_becomes_these_rows(
    name: str, scorer: Scorer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files, options, expected, note = CASES[name]
    monkeypatch.chdir(tmp_path)
    Path("d").mkdir()
    write(Path("d"), files)
    how = {key: value for key, value in options.items() if key != "frames"}
    items = expand("d", recursive=any("/" in file.removeprefix("../") for file in files), **how)
    rows = list(score_rows(scorer, each_frame(items) if options.get("frames") else items))
    found = [(row["file"], row["prompt"], row["status"]) for row in rows]
    assert found == [(f"d/{file}", prompt, status) for file, prompt, status, _ in expected]
    for row, (_, _, status, reason) in zip(rows, expected, strict=True):
        assert reason in str(row["reason"] or "")
        assert (row["quality"] is not None) == (status == OK)
    assert note in " ".join(items.notes)
    if not note:
        assert not [one for one in items.notes if "was not read" in one or "left out" in one]


def test_the_table_has_its_rows() -> None:
    assert len(CASES) >= 60


def test_columns_on_how_images_were_made(tmp_path: Path) -> None:
    write(tmp_path, {"a.png": png(parameters=LINES), "b.png": PNG, "c.png": b""})
    rows = [metadata_row(item) for item in expand(tmp_path)]
    assert rows[0] == {
        **{"generator": "sd", "negative_prompt": "blurry,\nbad", "seed": 1234567890, "steps": 20},
        **{"sampler": "DPM++ 2M", "cfg_scale": 7.5},
    }
    assert set(rows[1].values()) == set(rows[2].values()) == {None}


def test_python_habits(scorer: Scorer, tmp_path: Path) -> None:
    write(tmp_path, {"a.png": PNG})
    one = scorer(IMAGE).quality
    assert scorer(io.BytesIO(PNG)).quality == scorer(tmp_path / "a.png").quality == one
    assert scorer(NOISE / 255).quality == one
    batch = torch.from_numpy(NOISE.transpose(2, 0, 1)[None].repeat(3, 0)).float() / 255
    scores: list[Score] = scorer(batch)  # several, by its shape
    assert [score.quality for score in scores] == pytest.approx([one] * 3)
    with (tmp_path / "a.png").open("rb") as file:
        assert scorer(file).quality == one
    sources: tuple[Any, ...] = (str(tmp_path), tmp_path, PNG, io.BytesIO(PNG))
    for source in sources:
        with pytest.raises(UsageError, match="Expected several images, got one"):
            list(scorer.many(source))


def test_the_cache_knows_of_colour_and_keeps_no_image_with_a_caution(tmp_path: Path) -> None:
    pair, data = FakePair(), saved(icc_profile=p3())
    with Cache(tmp_path) as cache:
        found = {}
        for color in ("srgb", "as-stored", "srgb"):
            encoder = ImageEncoder(pair, cache=cache, opening=OpenOptions(color=color))
            found[color] = encoder.encode([data])[0].f_c
        assert pair.images == 2
        assert not torch.equal(found["srgb"], found["as-stored"])
        encoder = ImageEncoder(pair, cache=cache)
        for _ in range(2):
            assert encoder.encode([animated("GIF")])[0].note == FRAMES
        assert pair.images == 4


def test_a_resumed_run_knows_its_frames_apart(scorer: Scorer, tmp_path: Path) -> None:
    write(tmp_path, {"a.gif": animated("GIF")})
    rows = score_rows(scorer, each_frame(expand(tmp_path)), stamped=True)
    assert len({row[STAMP] for row in rows}) == 3


def test_rank_takes_the_mean_of_frames() -> None:
    rows = [
        {"file": "a.gif", "prompt": "", "quality": 1.0, "status": "ok", "frame": 1},
        {"file": "b.png", "prompt": "", "quality": 1.9, "status": "ok", "frame": None},
        {"file": "a.gif", "prompt": "", "quality": 3.0, "status": "ok", "frame": 2},
    ]
    ranked = rank(rows, {"quality": 1.0}).rows
    assert [(row["file"], row["quality"], row["frame"]) for row in ranked] == [
        ("a.gif", 2.0, None),
        ("b.png", 1.9, None),
    ]
