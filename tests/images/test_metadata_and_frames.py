"""Metadata never decides whether an image is read; and of several frames it is clear which one was."""

from __future__ import annotations

import io
import struct
import sys
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from fuzz.metadata import saved
from mst_clipiqa.errors import ImageError
from mst_clipiqa.images.colour import UNUSABLE
from mst_clipiqa.images.decode import open_image
from mst_clipiqa.images.frames import MOST_FRAMES
from mst_clipiqa.images.jxl import jxl_size
from mst_clipiqa.images.options import Frame
from tests.images.test_colour import p3

NOISE = np.random.default_rng(0).integers(0, 256, (32, 48, 3), dtype=np.uint8)
IMAGE = Image.fromarray(NOISE)


def chunk(name: bytes, data: bytes, *, broken: bool = False) -> bytes:
    check = zlib.crc32(name + data) ^ broken
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", check)


def png(*chunks: bytes, image: Image.Image = IMAGE, last: bool = False) -> bytes:
    """Return a PNG with chunks after its header, or before its end."""
    plain, at = saved(image, "PNG"), -12 if last else 33
    return plain[:at] + b"".join(chunks) + plain[at:]


def seen(data: bytes) -> np.ndarray[Any, Any]:
    return np.asarray(open_image(data).image)


def text(length: int, kind: bytes = b"zTXt") -> bytes:
    return chunk(kind, b"workflow\0" + (b"\0" + zlib.compress(b"x" * length) if kind == b"zTXt" else b"x" * length))


# --- PNG -----------------------------------------------------------------------------------------------------


BAD = {
    "a text over the limit": text(2_000_000),
    "many texts over the limit": text(40_000_000, b"tEXt") * 2,
    "a text of a strange compression": chunk(b"zTXt", b"a\0\7x"),
    "an international text over the limit": chunk(b"iTXt", b"a\0\1\0\0\0" + zlib.compress(b"x" * 2_000_000)),
    "a text with a bad checksum": chunk(b"tEXt", b"a\0b", broken=True),
    "a keyword that is not Latin-1": chunk(b"tEXt", b"\xff\xff\0b"),
    "a profile without an end": chunk(b"iCCP", b"x"),
    "a profile of a strange compression": chunk(b"iCCP", b"x\0\7abc"),
    "a short gAMA": chunk(b"gAMA", b"\0"),
    "a short pHYs": chunk(b"pHYs", b"\0\0"),
    "a short cHRM": chunk(b"cHRM", b"\0" * 31),
    "an empty sRGB": chunk(b"sRGB", b""),
    "a short tRNS": chunk(b"tRNS", b"\0\1"),
    "a bad checksum": chunk(b"tIME", b"\0" * 7, broken=True),
    "a short acTL": chunk(b"acTL", b"\0"),
    "frames out of order": chunk(b"acTL", struct.pack(">II", 2, 0)) + chunk(b"fcTL", struct.pack(">I", 7) + bytes(22)),
    "a chunk with a strange name": chunk(b"a\xff\xffa", b"x"),
}


@pytest.mark.parametrize("name", BAD)
@pytest.mark.parametrize("last", [False, True])
def test_a_png_is_read_from_its_good_pixels(name: str, last: bool) -> None:
    data = png(BAD[name], last=last)
    assert (seen(data) == NOISE).all()


def test_most_of_these_are_refused_by_the_parser() -> None:
    refused = []
    for name, bad in BAD.items():
        try:
            PngImagePlugin.PngImageFile(io.BytesIO(png(bad))).load()
        except Exception:  # noqa: BLE001 - whatever it raises
            refused.append(name)
    assert len(refused) > 10


def test_what_was_left_out_is_said_where_it_matters() -> None:
    assert open_image(png(BAD["a text over the limit"])).caution == ""
    assert open_image(png(BAD["a profile without an end"])).caution == UNUSABLE
    huge = zlib.compress(bytes(2_000_000))
    assert open_image(png(chunk(b"iCCP", b"x\0\0" + huge))).caution == UNUSABLE
    assert open_image(png(BAD["a short tRNS"])).caution == "its transparency is damaged and was left out"


def test_what_can_be_read_is_kept_beside_what_cannot() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    plain = saved(IMAGE, "PNG", exif=exif)
    data = plain[:33] + BAD["a text over the limit"] + plain[33:]
    assert open_image(data).image.size == (32, 48)
    grey = Image.fromarray(NOISE[..., 0])
    clear = png(text(2_000_000), chunk(b"tRNS", b"\0\7"), image=grey)
    assert (seen(clear)[..., 0] == np.where(NOISE[..., 0] == 7, 255, NOISE[..., 0])).all()


def test_damaged_pixels_stay_damaged() -> None:
    data = bytearray(png(BAD["a text over the limit"]))
    data[len(data) - len(data) // 4] ^= 255
    with pytest.raises(ImageError, match="Expected a whole PNG image"):
        open_image(bytes(data))
    with pytest.raises(ImageError, match="ends too early"):
        open_image(png(BAD["a text over the limit"])[:-500])


# --- JPEG ----------------------------------------------------------------------------------------------------


def segment(marker: int, data: bytes) -> bytes:
    return bytes([0xFF, marker]) + struct.pack(">H", len(data) + 2) + data


@pytest.mark.parametrize(
    "bad",
    [
        segment(0xE0, b"JFIF\0"),
        segment(0xEE, b"Adobe"),
        segment(0xE1, b"Exif\0\0MM\0*\xff\xff\xff\xff"),
        segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0<x"),
        segment(0xE2, b"ICC_PROFILE\0\1"),
        segment(0xE2, b"MPF\0MM\0*\0\0"),
        segment(0xED, b"Photoshop 3.0\0" + b"8BIM\4\4"),
        segment(0xFE, b"\xff" * 60000),
    ],
)
def test_a_jpeg_is_read_from_its_good_pixels(bad: bytes) -> None:
    plain = saved(IMAGE, "JPEG", quality=90)
    assert (seen(plain[:2] + bad + plain[2:]) == seen(plain)).all()


# --- frames --------------------------------------------------------------------------------------------------


def frames(count: int) -> list[Image.Image]:
    return [Image.fromarray(np.roll(NOISE, 5 * i, axis=1)).quantize(8) for i in range(count)]


def animated(kind: str, count: int = 5) -> bytes:
    first, *others = frames(count)
    if kind != "GIF":
        first, *others = [one.convert("RGB") for one in (first, *others)]
    options = {"lossless": True} if kind == "WEBP" else {"quality": 100} if kind == "AVIF" else {}
    return saved(first, kind, save_all=True, append_images=others, **options)


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP", "AVIF"])
def test_which_frame_was_read_is_said(kind: str) -> None:
    data = animated(kind)
    expected = [np.asarray(one.convert("RGB")).astype(int) for one in frames(5)]
    for opened, number in (
        (open_image(data), 0),
        (open_image(data, frame="middle"), 2),
        (open_image(Frame(data, 0), frame="middle"), 0),
        (open_image(Frame(data, 4)), 4),
    ):
        assert opened.caution == f"frame {number + 1} of 5"
        nearest = min(range(5), key=lambda i: np.abs(np.asarray(opened.image).astype(int) - expected[i]).mean())
        assert nearest == number
    with pytest.raises(ImageError, match="Expected a frame below 5, got 5"):
        open_image(Frame(data, 5))


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP", "AVIF", "JPEG", "TIFF", "BMP"])
def test_one_frame_needs_no_caution(kind: str) -> None:
    assert open_image(saved(IMAGE, kind)).caution == ""
    assert open_image(saved(IMAGE, kind), frame="middle").caution == ""


def test_frames_are_counted_up_to_a_bound() -> None:
    plain = saved(Image.new("P", (20, 20)), "GIF")
    start = plain.index(b",")
    many = plain[:start] + plain[start:-1] * (MOST_FRAMES + 500) + b";"
    assert open_image(many).caution.startswith("frame 1 of 1,000 or more")
    pieces = b"!\xfe" + b"\1x" * 5_000_000 + b"\0"
    assert open_image(plain[:start] + pieces[:20_000] + b"\0" + plain[start:]).width == 20
    with pytest.raises(ImageError, match="is damaged or of a rare kind"):
        open_image(plain[:start] + pieces + plain[start:])


def test_a_frame_far_away_is_refused() -> None:
    with pytest.raises(ImageError, match="Expected a frame that is reached within"):
        open_image(Frame(_claims(3000), 999))


def _claims(side: int) -> bytes:
    """Return a GIF of a thousand frames on a canvas of this many pixels to a side."""
    plain = saved(Image.new("P", (20, 20)), "GIF")
    start = plain.index(b",")
    whole = plain[:start] + plain[start:-1] * 1000 + b";"
    return whole[:6] + struct.pack("<HH", side, side) + whole[10:]


def test_the_full_page_of_a_tiff_counts_not_its_thumbnail() -> None:
    both = saved(IMAGE.resize((24, 16)), "TIFF", save_all=True, append_images=[IMAGE.copy()])
    assert seen(both).shape == (16, 24, 3)
    assert (seen(_with_subfile_type(both)) == NOISE).all()
    assert (seen(saved(IMAGE, "TIFF", tiffinfo={254: 1})) == NOISE).all()  # nothing else is there


def _with_subfile_type(data: bytes) -> bytes:
    """Return a TIFF whose first page says that it is a smaller copy: its directory is written again at the end."""
    (offset,) = struct.unpack_from("<I", data, 4)
    (count,) = struct.unpack_from("<H", data, offset)
    entries = data[offset + 2 : offset + 2 + 12 * count]
    following = data[offset + 2 + 12 * count : offset + 6 + 12 * count]
    at = len(data) + len(data) % 2
    directory = struct.pack("<H", count + 1) + struct.pack("<HHII", 254, 4, 1, 1) + entries + following
    return data[:4] + struct.pack("<I", at) + data[8:] + bytes(len(data) % 2) + directory


def test_a_raw_photograph_is_not_its_thumbnail() -> None:
    data = _with_subfile_type(saved(IMAGE, "TIFF", tiffinfo={330: 8}))
    with pytest.raises(ImageError, match="got a raw photograph with a thumbnail: develop it"):
        open_image(data)
    alone = open_image(_with_subfile_type(saved(IMAGE, "TIFF")))
    assert alone.caution == "its only page says that it is a thumbnail"


# --- formats that need a package -----------------------------------------------------------------------------


def heic(image: Image.Image, **options: Any) -> bytes:
    plugin = pytest.importorskip("pillow_heif")
    file = io.BytesIO()
    plugin.from_pillow(image).save(file, quality=-1, chroma=444, matrix_coefficients=0, **options)
    return file.getvalue()


def jxl(image: Image.Image, **options: Any) -> bytes:
    pytest.importorskip("pillow_jxl")
    return saved(image, "JXL", lossless=True, **options)


@pytest.mark.parametrize("make", [heic, jxl])
def test_images_of_phones(make: Callable[..., bytes]) -> None:
    data = make(IMAGE)
    assert np.abs(seen(data).astype(int) - NOISE).max() <= 1
    assert open_image(data).caution == ""
    with pytest.raises(ImageError, match="Expected at most 100 pixels, got 48 x 32"):
        open_image(data, max_pixels=100)
    for cut in (20, 100, len(data) // 2):
        with pytest.raises(ImageError):
            open_image(data[:cut])


def test_their_colour_profiles() -> None:
    data = heic(IMAGE, icc_profile=p3())
    assert np.abs(seen(data).astype(int) - seen(saved(IMAGE, "PNG", icc_profile=p3()))).max() <= 1


@pytest.mark.parametrize("size", [(48, 32), (300, 300), (640, 360), (1000, 17), (8, 5000), (1024, 768)])
@pytest.mark.parametrize("container", [False, True])
def test_the_size_in_a_header_of_jpeg_xl(size: tuple[int, int], container: bool) -> None:
    data = jxl(Image.new("L", size), use_container=container)
    assert jxl_size(io.BytesIO(data)) == size


def test_a_jpeg_xl_that_claims_too_much_is_not_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    plugin = pytest.importorskip("pillow_jxl.JpegXLImagePlugin")
    monkeypatch.setattr(plugin.JXLImageFile, "_open", lambda _: pytest.fail("decoded"))
    bits = 0 | 3 << 1 | (2**30 - 1) << 3 | 1 << 33  # not in eights, a height of 30 bits, a ratio of 1 to 1
    with pytest.raises(ImageError, match="Expected at most 178,956,970 pixels"):
        open_image(b"\xff\x0a" + bits.to_bytes(12, "little"))


@pytest.mark.parametrize(
    ("head", "kind", "extra"),
    [(b"\0\0\0\x18ftypheic\0\0\0\0", "HEIC", "heic"), (b"\xff\x0a" + bytes(20), "JPEG XL", "jxl")],
)
def test_a_missing_package_is_named(head: bytes, kind: str, extra: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("pillow_heif", "pillow_jxl", "pillow_jxl.JpegXLImagePlugin"):
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ImageError) as caught:
        open_image(head)
    assert f'got a {kind} image: pip install "mst-clipiqa[{extra}]" to read it, or save it as PNG' in str(caught.value)


# --- images that hold little ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("image", "caution"),
    [
        (Image.fromarray(NOISE[:2, :3]), "only 3 x 2 pixels"),
        (Image.new("RGB", (40, 40), (3, 3, 3)), "one flat colour"),
        (Image.new("RGB", (40, 40), "white"), "one flat colour"),
        (Image.new("RGBA", (40, 40), (9, 9, 9, 0)), "wholly transparent"),
        (Image.new("RGBA", (40, 40), (255, 255, 255, 255)), "one flat colour"),
        (IMAGE, ""),
    ],
)
def test_images_that_hold_little_are_read_with_a_caution(image: Image.Image, caution: str) -> None:
    assert open_image(saved(image, "PNG")).caution == caution
    assert open_image(image).caution == caution


def test_one_pixel_is_enough_to_be_no_flat_colour() -> None:
    image = Image.new("RGB", (40, 40), (3, 3, 3))
    image.putpixel((17, 23), (4, 3, 3))
    assert open_image(image).caution == ""
