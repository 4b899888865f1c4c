"""Images as people have them, images as nobody should have them, and what is said of each."""

from __future__ import annotations

import io
import os
import socket
import struct
import subprocess
import sys
import threading
import time
import tracemalloc
import warnings
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, features

from mst_clipiqa.errors import ImageError, shown
from mst_clipiqa.images.decode import open_image
from mst_clipiqa.images.files import read_image
from mst_clipiqa.images.options import MAX_PIXELS

FORMATS = ["PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF"] + (["AVIF"] if features.check("avif") else [])
ORIENTATION = 0x0112
LOSSY = 20  # mean difference that compression may make to `blocks`; a wrong turn or a negative makes over 80


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def blocks(width: int = 32, height: int = 16) -> Image.Image:
    """Red top left, green top right, blue bottom left, black bottom right: each turn looks different."""
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[: height // 2, : width // 2, 0] = 255
    pixels[: height // 2, width // 2 :, 1] = 255
    pixels[height // 2 :, : width // 2, 2] = 255
    return Image.fromarray(pixels)


def pixels_of(source: Any, **options: Any) -> np.ndarray[Any, Any]:
    image = open_image(source, **options).image
    assert image.mode == "RGB"
    return np.asarray(image).astype(int)


def reason_of(source: Any, **options: Any) -> str:
    with pytest.raises(ImageError) as caught:
        open_image(source, **options)
    message = str(caught.value)
    assert "\n" not in message
    assert message.endswith(".")
    assert message.startswith("Expected")
    return message


def chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png(size: tuple[int, int], depth: int, colour: int, rows: bytes, *more: bytes) -> bytes:
    """Return a PNG put together by hand, so that its header may say what no library would write."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", *size, depth, colour, 0, 0, 0))
    body = chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(more) + body


# --- formats, sizes, turns -----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", FORMATS)
def test_every_format_from_every_kind_of_source(kind: str, tmp_path: Path) -> None:
    data = encoded(blocks(), kind)
    path = tmp_path / "wrong suffix.dat"  # the bytes decide, not the name
    path.write_bytes(data)
    expected = pixels_of(data)
    assert np.abs(expected - np.asarray(blocks())).mean() < LOSSY
    for source in (str(path), path, bytearray(data), memoryview(data), Image.open(io.BytesIO(data))):
        assert (pixels_of(source) == expected).all()
    assert (pixels_of(expected.astype(np.uint8)) == expected).all()
    tensor = torch.from_numpy(expected.astype(np.uint8)).permute(2, 0, 1).float() / 255
    assert (pixels_of(tensor) == expected).all()
    image = open_image(path)
    assert (image.width, image.height) == (32, 16)
    assert type(image.image) is Image.Image
    assert not image.image.info


@pytest.mark.parametrize("kind", [kind for kind in FORMATS if kind not in ("BMP", "GIF")])
@pytest.mark.parametrize("turn", range(1, 9))
def test_exif_orientation(kind: str, turn: int) -> None:
    exif = Image.Exif()
    exif[ORIENTATION] = turn
    undo = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}  # Image.Transpose that the camera would have applied
    stored = blocks() if turn == 1 else blocks().transpose(Image.Transpose(undo[turn]))
    data = encoded(stored, kind, exif=exif)
    image = open_image(data)
    assert (image.width, image.height) == image.image.size == (32, 16)
    assert np.abs(np.asarray(image.image).astype(int) - np.asarray(blocks())).mean() < LOSSY
    assert (pixels_of(Image.open(io.BytesIO(data))) == np.asarray(image.image)).all()


def test_damaged_exif_costs_the_turn_not_the_image() -> None:
    plain = encoded(blocks(), "JPEG")
    for exif in (b"Exif\0\0", b"Exif\0\0II*\0\x08\0\0\0\xff\xff", b"Exif\0\0MM" + b"\xff" * 40):
        segment = b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif
        assert (pixels_of(plain[:2] + segment + plain[2:]) == pixels_of(plain)).all()
    note = chunk(b"tEXt", b"Raw profile type exif\0\nexif\n 4\nno hex")
    data = encoded(blocks(), "PNG")
    with pytest.raises(ValueError, match="hex"):  # or this test would prove nothing
        Image.open(io.BytesIO(data[:33] + note + data[33:])).getexif()
    assert (pixels_of(data[:33] + note + data[33:]) == np.asarray(blocks())).all()


@pytest.mark.parametrize("size", [(1, 1), (1, 300), (300, 1), (2, 9000)])
@pytest.mark.parametrize("kind", FORMATS)
def test_thin_images(kind: str, size: tuple[int, int]) -> None:
    image = open_image(encoded(Image.new("RGB", size, (250, 250, 250)), kind))
    assert image.image.size == (image.width, image.height) == size


def test_the_first_frame_counts() -> None:
    red, blue = Image.new("RGB", (8, 8), (255, 0, 0)), Image.new("RGB", (8, 8), (0, 0, 255))
    for kind in ("GIF", "TIFF", "PNG", "WEBP"):
        data = encoded(red, kind, save_all=True, append_images=[blue], lossless=True)
        assert pixels_of(data)[4, 4].tolist() == [255, 0, 0], kind


# --- modes -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBA", "CMYK", "YCbCr", "LA", "PA", "La", "RGBa", "HSV"])
def test_every_mode_keeps_black_and_white(mode: str) -> None:
    half = Image.fromarray(np.repeat(np.array([[0, 255]], np.uint8), 8, axis=1))
    image = half.convert({"RGBa": "RGBA", "La": "LA"}.get(mode, mode)).convert(mode)
    got = pixels_of(image)
    assert got[0, 0].max() <= 1
    assert got[0, -1].min() >= 254
    assert image.mode == mode  # the caller's image is untouched


def test_alpha_lies_on_white() -> None:
    rgba = np.zeros((1, 3, 4), np.uint8)
    rgba[0, :, 3] = (0, 128, 255)  # black: clear, half, solid
    for source in (rgba, Image.fromarray(rgba), encoded(Image.fromarray(rgba), "PNG")):
        assert pixels_of(source)[0, :, 0].tolist() == [255, 127, 0]
    whole = Image.fromarray(rgba)
    for image in (whole.convert("LA"), whole.convert("PA"), whole.convert("LA").convert("La")):
        assert pixels_of(image)[0, :, 0].tolist() == [255, 127, 0], image.mode


def test_transparent_palettes_and_colours_lie_on_white() -> None:
    palette = Image.new("P", (2, 1))
    palette.putpalette([10, 20, 30, 200, 0, 0])
    palette.putpixel((1, 0), 1)
    for transparency in (0, b"\x00\xff"):
        for kind in ("PNG", "GIF") if transparency == 0 else ("PNG",):
            data = encoded(palette, kind, transparency=transparency)
            assert pixels_of(data)[0].tolist() == [[255, 255, 255], [200, 0, 0]]
    clear = chunk(b"tRNS", struct.pack(">3H", 65535, 0, 0))
    wide = b"\0" + struct.pack(">6H", 65535, 0, 0, 0, 128 * 257, 0)
    assert pixels_of(png((2, 1), 16, 2, wide, clear))[0].tolist() == [[255, 255, 255], [0, 128, 0]]
    clear, wide = chunk(b"tRNS", struct.pack(">H", 0)), b"\0" + struct.pack(">2H", 0, 100 * 257)
    assert pixels_of(png((2, 1), 16, 0, wide, clear))[0, :, 0].tolist() == [255, 100]


def test_cmyk_jpegs_are_not_negatives() -> None:
    data = encoded(blocks().convert("CMYK"), "JPEG", quality=95, subsampling=0)
    assert b"Adobe" in data[:64]  # written inverted, as Photoshop does
    assert np.abs(pixels_of(data) - np.asarray(blocks())).mean() < LOSSY


def test_sixteen_bits_are_divided_by_257() -> None:
    deep = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    expected = np.rint(deep / 257)
    for mode in ("I;16", "I;16B"):
        image = Image.frombytes(mode, (256, 256), deep.astype("<u2" if mode == "I;16" else ">u2").tobytes())
        assert (pixels_of(image)[..., 0] == expected).all()
    for kind in ("PNG", "TIFF"):
        assert (pixels_of(encoded(Image.fromarray(deep), kind))[..., 1] == expected).all()
    dark = np.full((4, 4), 200, np.uint16)  # a dark 16-bit image is not an 8-bit one
    assert pixels_of(encoded(Image.fromarray(dark), "PNG")).max() == 1
    as_older_pillow = Image.fromarray(dark.astype(np.int32))
    as_older_pillow.format = "PNG"
    assert pixels_of(as_older_pillow).max() == 1


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (np.array([[0, 0.5, 1]], np.float32), [0, 128, 255]),
        (np.array([[0, 127.6, 255]], np.float32), [0, 128, 255]),
        (np.array([[0, 25700, 65535]], np.float32), [0, 100, 255]),
        (np.array([[0, 1, 255]], np.int32), [0, 1, 255]),
        (np.array([[0, 25700, 65535]], np.int32), [0, 100, 255]),
    ],
)
def test_thirty_two_bits_are_scaled_by_their_range(values: np.ndarray[Any, Any], expected: list[int]) -> None:
    for source in (Image.fromarray(values), encoded(Image.fromarray(values), "TIFF")):
        assert pixels_of(source)[0, :, 0].tolist() == expected


@pytest.mark.parametrize("bad", [-1.0, 70000.0, np.nan, np.inf])
def test_thirty_two_bits_without_a_white_are_refused(bad: float) -> None:
    values = Image.fromarray(np.array([[0.25, bad]], np.float32))
    assert "in 0..1, 0..255 or 0..65535, got 32-bit values" in reason_of(values)


# --- arrays and tensors ----------------------------------------------------------------------------------------


def test_arrays_grey_rgb_and_not_contiguous() -> None:
    base = np.asarray(blocks())
    assert (pixels_of(base[..., 0])[..., 2] == base[..., 0]).all()
    assert (pixels_of(base[::2, ::-1]) == base[::2, ::-1]).all()
    for dtype in (np.float64, np.float32, np.float16):
        assert (pixels_of((base / 255).astype(dtype)) == base).all()


def test_open_files() -> None:
    data = encoded(blocks(), "PNG")
    file = io.BytesIO(data)
    assert (pixels_of(file) == np.asarray(blocks())).all()
    assert "got an open file at its end: call seek(0) before" in reason_of(file)
    assert "got an open file that gives bytes" not in reason_of(io.StringIO("x"))
    assert "got str: open it in binary mode" in reason_of(io.StringIO("x"))
    assert "Expected at most 20 bytes" in reason_of(io.BytesIO(data), max_bytes=20)


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (np.full((4, 4, 3), 200.0), "Expected values in [0, 1], got values from 200 to 200: divide it by 255"),
        (np.full((4, 4), np.nan), "got NaN"),
        (np.zeros((4, 4), np.uint16), "dtype uint8 (0..255) or floats in [0, 1], got uint16: scale and convert it"),
        (np.zeros((3, 9, 9), np.uint8), "got (3, 9, 9): move the channels last"),
        (np.zeros((2, 4, 4, 3), np.uint8), "got (2, 4, 4, 3): give one image"),
        (np.zeros((0, 4, 3), np.uint8), "got (0, 4, 3)"),
    ],
)
def test_arrays_that_are_no_image(array: np.ndarray[Any, Any], words: str) -> None:
    assert words in reason_of(array)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16])
def test_float_tensors_of_any_precision(dtype: torch.dtype) -> None:
    tensor = torch.tensor([0.0, 0.5, 1.0], dtype=dtype).expand(3, 2, 3).requires_grad_()
    assert pixels_of(tensor)[0, :, 0].tolist() == [0, 128, 255]
    assert pixels_of(torch.full((3, 2, 2), 1.00001)).min() == 255
    assert pixels_of(torch.full((3, 2, 2), -0.00001)).max() == 0


@pytest.mark.parametrize(
    ("tensor", "words"),
    [
        (torch.full((3, 4, 4), 255.0), "in [0, 1], got values from 255 to 255: divide it by 255"),
        (torch.tensor([0.0, 200]).expand(3, 2, 2), "got values from 0 to 200: divide it by 255"),
        (torch.tensor([-1.0, 1]).expand(3, 2, 2), "got values from -1 to 1: scale or clamp it to [0, 1]"),
        (torch.tensor([0.0, 1.02]).expand(3, 2, 2), "scale or clamp it"),
        (torch.tensor([0.0, float("nan")]).expand(3, 2, 2), "got NaN or infinity"),
        (torch.tensor([0.0, float("inf")]).expand(3, 2, 2), "got NaN or infinity"),
        (torch.zeros(3, 4, 4, dtype=torch.uint8), "a float tensor in [0, 1], got torch.uint8: divide it by 255"),
        (torch.zeros(4, 4, 3), "a tensor (3, H, W), got (4, 4, 3): give one RGB image, channels first"),
        (torch.zeros(1, 3, 4, 4), "got (1, 3, 4, 4)"),
        (torch.zeros(3, 0, 4), "got (3, 0, 4)"),
    ],
)
def test_tensors_that_are_no_image(tensor: torch.Tensor, words: str) -> None:
    assert words in reason_of(tensor)


@pytest.mark.parametrize("source", [None, 3, 2.5, [[1]], object()])
def test_other_objects(source: Any) -> None:
    assert "a path, bytes, an open file, a PIL image, a uint8 array or a float tensor, got" in reason_of(source)


# --- files that are no image ---------------------------------------------------------------------------------


def test_names_without_a_file(tmp_path: Path) -> None:
    gone = "found no file of this name: check the name and its folder"
    assert gone in reason_of(tmp_path / "gone.png")
    assert gone in reason_of("")
    (tmp_path / "file").write_bytes(b"x")
    assert gone in reason_of(tmp_path / "file" / "x.png")
    (tmp_path / "broken.png").symlink_to(tmp_path / "gone.png")
    assert gone in reason_of(tmp_path / "broken.png")
    assert "(addresses on the web are not fetched)" in reason_of("https://example.org/x.png")


def test_names_that_cannot_be_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loop = tmp_path / "loop.png"
    loop.symlink_to(loop)
    assert "cannot be read (" in reason_of(loop)
    assert "embedded null" in reason_of("x\0.png")
    assert "File name too long" in reason_of("x" * 5000)
    assert "cannot be read" in reason_of("\ud800.png")
    (tmp_path / "x.png").write_bytes(encoded(blocks(), "PNG"))

    def denied(*_: Any) -> int:  # root may read everything, so the refusal is acted
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "open", denied)
    assert "cannot be read (Permission denied): check its name, permissions" in reason_of(tmp_path / "x.png")


def test_a_disk_that_fails_while_reading(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x.png"
    path.write_bytes(encoded(blocks(), "PNG"))

    class Failing(io.FileIO):
        def readinto(self, _: Any) -> int:
            raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "fdopen", lambda fd, *_, **__: io.BufferedReader(Failing(fd)))
    assert "cannot be read (Input/output error)" in reason_of(path)


def test_the_bytes_of_a_file_are_read_under_the_same_rules(tmp_path: Path) -> None:
    path = tmp_path / "x.png"
    path.write_bytes(b"any bytes")
    assert read_image(path) == b"any bytes"
    os.mkfifo(tmp_path / "pipe.png")
    for bad, words in ((tmp_path, "a folder"), (tmp_path / "pipe.png", "a named pipe"), ("gone", "no file")):
        with pytest.raises(ImageError, match=words):
            read_image(bad)
    with pytest.raises(ImageError, match="at most 8 bytes, got 9"):
        read_image(path, max_bytes=8)


def test_folders_pipes_sockets_and_devices(tmp_path: Path) -> None:
    (tmp_path / "x.png").mkdir()
    assert "got a folder: name a file in it, or score the whole folder" in reason_of(tmp_path / "x.png")
    os.mkfifo(tmp_path / "pipe.png")
    assert "got a named pipe: save the image to an ordinary file" in reason_of(tmp_path / "pipe.png")
    assert "got a device or socket" in reason_of("/dev/zero")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(os.path.relpath(tmp_path / "s"))  # relative: socket names are short
        assert "got a device or socket" in reason_of(tmp_path / "s")


def test_a_pipe_that_takes_the_place_of_a_file_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, look = tmp_path / "x.png", Path.stat
    path.write_bytes(b"x")

    def swap(self: Path) -> os.stat_result:
        info = look(self)
        path.unlink()
        os.mkfifo(path)
        return info

    monkeypatch.setattr(Path, "stat", swap)
    assert "got a named pipe" in reason_of(path)


def test_empty_and_huge_files(tmp_path: Path) -> None:
    path = tmp_path / "x.png"
    path.touch()
    assert "got nothing (0 bytes): save or download it again" in reason_of(path)
    assert "got nothing (0 bytes)" in reason_of(b"")
    os.truncate(path, 2**40)  # sparse: takes no room
    assert "at most 536,870,912 bytes, got 1,099,511,627,776: save it smaller" in reason_of(path)
    assert "at most 10 bytes, got 11" in reason_of(b"x" * 11, max_bytes=10)


@pytest.mark.parametrize(
    ("head", "name"),
    [
        (b"%PDF-1.7", "a PDF document"),
        (b"8BPS", "a Photoshop document"),
        (b"\n <!DOCTYPE html><html>", "a web page"),
        (b"<svg xmlns=", "an SVG drawing"),
        (b"<?xml version=", "an XML or SVG document"),
        (b"version https://git-lfs.github.com/spec/v1", "a Git LFS pointer"),
        (b"\0\0\0\x18ftypisom\0\0\0\0", "a video: save a frame"),
        (b"RIFF\0\0\0\0AVI LIST", "a video or sound"),
        (b"\xef\xbb\xbf<!DOCTYPE html>", "a web page: download the image itself"),
        (b"<!-- saved from url --><html>", "a web page"),
        (b'{"error": "out of memory"}', "JSON text, such as an error message"),
        (b"data:image/png;base64,iVBORw0KGgo", "a data URI, which is text: decode it first"),
        (b"iVBORw0KGgoAAAANSUhEUg", "an image as base64 text: decode it first"),
        (b"/9j/4AAQSkZJRg", "an image as base64 text"),
        (b"UklGRiQAAABXRUJQ", "an image as base64 text"),
        (b"DDS |", "a DDS texture"),
        (b"qoif", "a QOI image"),
        (b"II*\0\x10\0\0\0CR\2\0", "a raw photograph: develop it"),
        (b"\0\0\0\x18ftypcrx \0\0\0\0", "a raw photograph"),
        (b"FUJIFILMCCD-RAW 0201", "a raw photograph"),
        (b"\x1f\x8b\x08", "a gzip archive: unpack it"),
        (b"\0\0\0\x0cjP  \r\n", "a JPEG 2000 image"),
        (b"PK\3\4", "a zip archive"),
        (b"\x93NUMPY", "a NumPy array"),
        (b"\0\0\1\0", "an icon"),
        (b"P6 1 1 255 abc", "a PPM, PGM or PBM image"),
        (b"%!PS-Adobe-3.0 EPSF", "a PostScript document"),  # Pillow would start Ghostscript
        (b"\1\2\3\4", "bytes that are none of these: save it as PNG or JPEG"),
    ],
)
def test_what_came_instead_is_named(head: bytes, name: str) -> None:
    reason = reason_of(head + b"\0" * 100)
    assert f"(PNG, JPEG, WebP, BMP, TIFF, GIF or AVIF), got {name}" in reason


@pytest.mark.parametrize("kind", FORMATS)
def test_truncated_files(kind: str) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    data = encoded(Image.fromarray(noise), kind)
    for part in (0.02, 0.3, 0.6, 0.9):
        reason = reason_of(data[: int(len(data) * part)])
        assert "got one that ends too early" in reason or "got one that is damaged" in reason
    if kind not in ("WEBP", "AVIF"):  # their parsers do not always tell the two apart
        assert "ends too early: save or download it again" in reason_of(data[: len(data) * 6 // 10])


def test_a_parser_that_finds_no_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise MemoryError

    monkeypatch.setattr("mst_clipiqa.images.decode.to_rgb", full)
    assert "an image that fits into memory" in reason_of(encoded(blocks(), "PNG"))


def test_pil_images_that_cannot_be_loaded() -> None:
    image = Image.open(io.BytesIO(encoded(blocks(), "PNG")[:80]))
    assert "a whole PIL image, got one that ends too early" in reason_of(image)
    assert "at least one pixel, got 0 x 4" in reason_of(Image.new("RGB", (0, 4)))


# --- bombs ------------------------------------------------------------------------------------------------------


def bombs() -> dict[str, bytes]:
    side = 60_000
    tags = [(256, 4, side), (257, 4, side), (258, 3, 8), (259, 3, 1), (262, 3, 1), (273, 4, 8), (278, 4, side)]
    entries = b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in [*tags, (279, 4, 9)])
    jpeg = bytearray(encoded(blocks(), "JPEG"))
    at = jpeg.index(b"\xff\xc0") + 5
    jpeg[at : at + 4] = struct.pack(">HH", side, side)
    bmp = bytearray(encoded(blocks(), "BMP"))
    bmp[18:26] = struct.pack("<ii", side, side)
    gif = bytearray(encoded(blocks(), "GIF"))
    gif[6:10] = struct.pack("<HH", side, side)
    webp = bytearray(encoded(blocks().convert("RGBA"), "WEBP", exif=Image.Exif(), lossless=True))
    canvas = b"RIFF\x2a\0\0\0WEBPVP8X\x0a\0\0\0\0\0\0\0" + b"\xff\x3f\0" * 2 + bytes(webp[12:])
    return {
        "PNG": png((side, side), 8, 2, b"\0" * 100),
        "JPEG": bytes(jpeg),
        "BMP": bytes(bmp),
        "GIF": bytes(gif),
        "TIFF": b"II*\0\x08\0\0\0" + struct.pack("<H", len(tags) + 1) + entries + b"\0" * 12,
        "WebP": canvas,
    }


@pytest.mark.parametrize("kind", list(bombs()))
def test_bombs_are_refused_by_their_header(kind: str) -> None:
    tracemalloc.start()
    start = time.perf_counter()
    reason = reason_of(bombs()[kind])
    assert f"at most {MAX_PIXELS:,} pixels, got" in reason
    assert "save it smaller" in reason
    assert time.perf_counter() - start < 1
    assert tracemalloc.get_traced_memory()[1] < 5e6
    tracemalloc.stop()


def test_the_limit_is_the_callers() -> None:
    data = encoded(blocks(), "PNG")
    assert open_image(data, max_pixels=512).width == 32
    for source in (data, blocks(), np.asarray(blocks())):
        assert "at most 511 pixels, got 32 x 16: save it smaller, or raise --max-megapixels" in reason_of(
            source, max_pixels=511
        )


def test_a_tiff_that_claims_more_than_its_strips_hold() -> None:
    data = bytearray(encoded(Image.new("L", (9, 9)), "TIFF"))
    at = data.index(struct.pack("<HHI", 257, 3, 1)) if struct.pack("<HHI", 257, 3, 1) in data else -1
    at = at if at >= 0 else data.index(struct.pack("<HHI", 257, 4, 1))
    data[at + 2 : at + 12] = struct.pack("<HII", 4, 1, 9_000_000)
    assert "a whole TIFF image, got one that is damaged" in reason_of(bytes(data))


# --- speed option ------------------------------------------------------------------------------------------------


def test_reduced_decoding_keeps_both_sides_and_says_the_whole_size() -> None:
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    data = encoded(blocks(1000, 640), "JPEG", exif=exif)
    image = open_image(data, reduce_to=224)
    assert (image.width, image.height) == (640, 1000)
    assert image.image.size == (320, 500)
    assert open_image(data, reduce_to=321).image.size == (640, 1000)
    assert open_image(encoded(blocks(1000, 640), "PNG"), reduce_to=224).image.size == (1000, 640)
    small = np.asarray(open_image(data).image.resize((320, 500), Image.Resampling.BOX)).astype(int)
    assert np.abs(small - np.asarray(image.image)).mean() < 2


# --- silence, threads, imports -------------------------------------------------------------------------------


def with_warning() -> bytes:
    """Return an image over which Pillow warns: an EXIF entry points past the end."""
    exif = b"Exif\0\0II*\0\x08\0\0\0\x02\0" + struct.pack("<HHII", 0x010E, 2, 900, 5000)
    exif += struct.pack("<HHII", 0x0112, 3, 1, 3) + b"\0" * 4
    plain = encoded(blocks(), "JPEG")
    return plain[:2] + b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif + plain[2:]


def test_pillow_warnings_stay_inside() -> None:
    with pytest.warns(UserWarning, match="EXIF|Tag data"):  # or this test would prove nothing
        Image.open(io.BytesIO(with_warning())).getexif()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert pixels_of(with_warning())[0, 0, 0] < 9  # turned by 180 degrees
        warnings.simplefilter("error")
        pixels_of(with_warning())
    assert caught == []


def test_other_warnings_still_come_and_filters_do_not_pile_up() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        before = Image.MAX_IMAGE_PIXELS
        for _ in range(3):
            open_image(with_warning())
        count = len(warnings.filters)
        open_image(with_warning())
        assert len(warnings.filters) == count
        assert before == Image.MAX_IMAGE_PIXELS
        with pytest.raises(UserWarning, match="mine"):
            warnings.warn("mine", UserWarning, stacklevel=1)


def test_other_threads_keep_their_warnings() -> None:
    from mst_clipiqa.images.modes import quiet

    heard: list[str] = []

    def speak() -> None:
        try:
            warnings.warn("from the other thread", UserWarning, stacklevel=1)
        except UserWarning as warning:
            heard.append(str(warning))

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with quiet():
            thread = threading.Thread(target=speak)
            thread.start()
            thread.join()
            warnings.warn("from this thread", UserWarning, stacklevel=1)
    assert heard == ["from the other thread"]


def test_many_threads_at_once() -> None:
    sources = [with_warning(), encoded(blocks(), "PNG"), encoded(blocks(), "WEBP"), b"none", bombs()["GIF"]]
    alone = [outcome(source) for source in sources]
    found: list[list[Any]] = []
    threads = [threading.Thread(target=lambda: found.append([outcome(s) for s in sources * 20])) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8
    assert all(one == alone * 20 for one in found)


def outcome(source: bytes) -> bytes | str:
    try:
        return open_image(source).image.tobytes()
    except ImageError as error:
        return str(error)


def test_importing_it_and_opening_a_file_imports_no_torch(tmp_path: Path) -> None:
    (tmp_path / "x.png").write_bytes(encoded(blocks(), "PNG"))
    code = (
        "import sys; from mst_clipiqa.images.decode import open_image; open_image(sys.argv[1]);"
        "sys.exit(int('torch' in sys.modules or 'numpy' in sys.modules))"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "x.png")], check=True)


# --- anything at all ---------------------------------------------------------------------------------------------


def seeds() -> list[bytes]:
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (20, 24, 3), dtype=np.uint8))
    made = [encoded(noise, kind) for kind in FORMATS]
    made += [encoded(noise, "TIFF", compression=c) for c in ("tiff_lzw", "jpeg", "packbits")]
    made += [encoded(noise.convert("P"), kind, transparency=3) for kind in ("PNG", "GIF")]
    made += [encoded(noise.convert("CMYK"), "JPEG"), encoded(noise, "JPEG", progressive=True), with_warning()]
    return [*made, *bombs().values()]


SEEDS = seeds()


@settings(max_examples=400, deadline=5000)
@given(st.data())
def test_flipped_and_cut_bytes_are_an_image_or_a_reason(data: st.DataObject) -> None:
    broken = bytearray(data.draw(st.sampled_from(SEEDS)))
    for _ in range(data.draw(st.integers(0, 6))):
        broken[data.draw(st.integers(0, len(broken) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.one_of(st.none(), st.integers(0, len(broken))))
    found = outcome(bytes(broken[:cut]))
    assert isinstance(found, bytes) or found.startswith("Expected")


@settings(max_examples=100)
@given(st.one_of(st.binary(max_size=80), st.text(max_size=20)))
def test_any_bytes_and_any_name(source: bytes | str) -> None:
    if isinstance(source, bytes):
        assert isinstance(outcome(source), str)
    else:
        with pytest.raises(ImageError, match=r"^Expected .*\.$"):
            open_image(source)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("a b.png", "'a b.png'"),
        ("a\nb\x1b[31m\u202e\udce9", r"'a\nb\x1b[31m\u202e\udce9'"),
        (Path("x") / "y", "'x/y'"),
    ],
)
def test_names_in_messages_are_printable(value: object, expected: str) -> None:
    assert shown(value) == expected


def test_long_names_in_messages_are_shortened() -> None:
    assert shown("a" * 10_000 + ".png", limit=20) == f"'{'a' * 10}...{'a' * 6}.png'"


class _NameInBytes:
    def __fspath__(self) -> bytes:
        return b"a.png"


def test_odd_sources_get_a_reason_and_never_stop_a_run() -> None:
    file = io.BytesIO()
    Image.new("RGB", (32, 32)).save(file, "PNG")
    apart = bytearray(2 * len(file.getvalue()))
    apart[::2] = file.getvalue()
    assert open_image(memoryview(apart)[::2]).width == 32
    assert open_image(torch._neg_view(-torch.full((3, 20, 20), 0.2))).image.getpixel((0, 0)) == (51, 51, 51)
    closed = io.BytesIO(file.getvalue())
    closed.close()
    with Image.open(io.BytesIO(file.getvalue())) as unread:
        pass
    read = Image.open(io.BytesIO(file.getvalue()))
    read.load()
    read.close()
    for source in (closed, unread, read):
        with pytest.raises(ImageError, match="got a closed one: open it again"):
            open_image(source)
    with pytest.raises(ImageError, match="got str: open it in binary mode"):
        open_image(io.StringIO("text"))  # type: ignore[arg-type]
    with pytest.raises(ImageError, match="a name in bytes, not in text"):
        open_image(_NameInBytes())  # type: ignore[arg-type]
