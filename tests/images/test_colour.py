"""Colours are seen as the file means them; files that say nothing of colours keep every bit."""

from __future__ import annotations

import io
import struct
import threading
import time
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageCms

from fuzz.metadata import saved
from mst_clipiqa.images import colour
from mst_clipiqa.images.colour import HDR, NOTHING, UNUSABLE, conversion, profile_of
from mst_clipiqa.images.decode import open_image

SRGB = (3, 2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045)
P3 = (0.3127, 0.3290, 0.680, 0.320, 0.265, 0.690, 0.150, 0.060)
REC709 = (0.3127, 0.3290, 0.64, 0.33, 0.30, 0.60, 0.15, 0.06)


def p3() -> bytes:
    found = profile_of(SRGB, P3)
    assert found is not None
    return found


def grey(gamma: float) -> bytes:
    """Return a grey profile with a plain gamma, put together by hand."""
    tags = {b"wtpt": b"XYZ \0\0\0\0" + struct.pack(">3i", 63190, 65536, 54061)}
    tags[b"kTRC"] = b"para\0\0\0\0" + struct.pack(">HHi", 0, 0, round(gamma * 65536))
    start = 132 + 12 * len(tags)
    index, body = b"", b""
    for name, data in tags.items():
        index += name + struct.pack(">II", start + len(body), len(data))
        body += data
    head = struct.pack(">I4sI4s4s4s", start + len(body), b"\0" * 4, 0x04300000, b"mntr", b"GRAY", b"XYZ ")
    head += struct.pack(">6H4s", 2026, 1, 1, 0, 0, 0, b"acsp") + bytes(28) + struct.pack(">3i", 63190, 65536, 54061)
    return head.ljust(128, b"\0") + struct.pack(">I", len(tags)) + index + body


def noise(*shape: int) -> np.ndarray[Any, Any]:
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def seen(source: Any, **options: Any) -> np.ndarray[Any, Any]:
    return np.asarray(open_image(source, **options).image).astype(int)


def with_chunks(data: bytes, *chunks: tuple[bytes, bytes]) -> bytes:
    """Return a PNG with chunks after its header."""
    made = b"".join(struct.pack(">I", len(b)) + n + b + struct.pack(">I", zlib.crc32(n + b)) for n, b in chunks)
    return data[:33] + made + data[33:]


def srgb_of(linear: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    return np.where(linear <= 0.0031308, linear * 12.92, 1.055 * linear ** (1 / 2.4) - 0.055) * 255


# --- ICC profiles --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF", "WEBP", "AVIF"])
def test_the_same_look_in_another_space_is_the_same_image(kind: str) -> None:
    ramp = np.dstack([np.linspace(60, 180, 64).repeat(64).reshape(64, 64)] * 3).astype(np.uint8)
    ramp[:, :, 1] = ramp[:, :, 1].T
    image, srgb = Image.fromarray(ramp), ImageCms.createProfile("sRGB")
    moved = ImageCms.profileToProfile(image, srgb, ImageCms.ImageCmsProfile(io.BytesIO(p3())))
    assert moved is not None
    options = {} if kind in ("PNG", "TIFF") else {"quality": 100}
    data = saved(moved, kind, icc_profile=p3(), **options)
    assert np.abs(seen(data, color="as-stored") - ramp).max() > 10
    assert np.abs(seen(data) - ramp).mean() < 1.5


def test_the_arithmetic_of_a_profile_against_the_formula() -> None:
    stored = np.array([[[200, 100, 50], [255, 0, 0], [17, 200, 90], [128, 128, 128]]], np.uint8).repeat(16, 0)
    stored = stored.repeat(4, 1)
    # Display P3 to sRGB in linear light, both with the same white and the same curve.
    to_srgb = np.array([[1.22494, -0.22494, 0], [-0.04206, 1.04206, 0], [-0.01964, -0.07864, 1.09828]])
    sample = stored / 255
    linear = np.where(sample <= 0.04045, sample / 12.92, ((sample + 0.055) / 1.055) ** 2.4)
    expected = srgb_of((linear @ to_srgb.T).clip(0, 1))
    found = seen(saved(Image.fromarray(stored), "PNG", icc_profile=p3()))
    assert np.abs(found - expected).max() <= 2


def test_images_without_a_profile_keep_every_bit() -> None:
    for image in (Image.fromarray(noise(32, 32, 3)), Image.fromarray(noise(32, 32)), Image.fromarray(noise(32, 32, 4))):
        for kind in ("PNG", "TIFF"):
            data = saved(image, kind)
            assert (seen(data) == seen(data, color="as-stored")).all()
    assert conversion(Image.new("RGB", (1, 1))) is NOTHING


def test_a_profile_that_is_srgb_keeps_every_bit() -> None:
    image = Image.fromarray(noise(32, 32, 3))
    for profile in (ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes(), profile_of(SRGB, REC709)):
        assert (seen(saved(image, "PNG", icc_profile=profile)) == np.asarray(image)).all()


def test_an_image_object_is_seen_as_its_file() -> None:
    data = saved(Image.fromarray(noise(32, 32, 3)), "PNG", icc_profile=p3())
    assert (seen(Image.open(io.BytesIO(data))) == seen(data)).all()


def test_transparent_parts_are_white_in_srgb() -> None:
    pixels = noise(32, 32, 4)
    pixels[:, :16, 3] = 0
    found = seen(saved(Image.fromarray(pixels), "PNG", icc_profile=p3()))
    assert (found[:, :16] == 255).all()
    opaque = seen(saved(Image.fromarray(np.dstack([pixels[..., :3], np.full((32, 32), 255, np.uint8)])), "PNG"))
    assert np.abs(found[:, 16:] - opaque[:, 16:]).mean() > 1


def test_grey_profiles() -> None:
    stored = np.arange(256, dtype=np.uint8).reshape(16, 16)
    linear = (stored / 255) ** 1.8
    for mode in ("L", "LA"):
        data = saved(Image.fromarray(stored).convert(mode), "PNG", icc_profile=grey(1.8))
        assert np.abs(seen(data)[..., 0] - srgb_of(linear)).max() <= 2
    deep = Image.fromarray(stored.astype(np.uint16) * 257)
    assert np.abs(seen(saved(deep, "PNG", icc_profile=grey(1.8)))[..., 0] - srgb_of(linear)).max() <= 2


def test_palettes() -> None:
    image = Image.fromarray(noise(32, 32, 3)).convert("P", palette=Image.Palette.ADAPTIVE, colors=16)
    data = saved(image, "PNG", icc_profile=p3())
    rgb = saved(image.convert("RGB"), "PNG", icc_profile=p3())
    assert (seen(data) == seen(rgb)).all()
    assert np.abs(seen(data) - seen(data, color="as-stored")).mean() > 1


def test_a_profile_of_another_kind_than_the_pixels_is_ignored() -> None:
    image = Image.fromarray(noise(32, 32, 3))
    opened = open_image(saved(image, "PNG", icc_profile=grey(1.8)))
    assert (np.asarray(opened.image) == np.asarray(image)).all()
    assert opened.caution == ""


@pytest.mark.parametrize(
    "profile", [b"x", b"\0" * 200, p3()[:100], p3()[:-30], p3().replace(b"RGB ", b"7CLR"), bytes(5 * 2**20)]
)
def test_profiles_that_cannot_be_used_leave_colours_as_stored_and_say_so(profile: bytes) -> None:
    image = Image.fromarray(noise(32, 32, 3))
    opened = open_image(saved(image, "TIFF", icc_profile=profile))
    assert (np.asarray(opened.image) == np.asarray(image)).all()
    assert opened.caution == UNUSABLE
    assert open_image(saved(image, "TIFF", icc_profile=profile), color="as-stored").caution == ""


def test_transforms_are_kept_for_a_few_profiles_only() -> None:
    colour._transform.cache_clear()
    for gamma in np.linspace(1, 3, 20):
        made = profile_of((0, float(gamma)), P3)
        assert made is not None
        seen(saved(Image.fromarray(noise(16, 16, 3)), "PNG", icc_profile=made))
    assert colour._transform.cache_info().currsize == colour._transform.cache_info().maxsize


def test_threads_share_a_transform() -> None:
    data = saved(Image.fromarray(noise(64, 64, 3)), "PNG", icc_profile=p3())
    expected, wrong = seen(data), []

    def look() -> None:
        end = time.monotonic() + 0.5
        while time.monotonic() < end:
            if (seen(data) != expected).any():
                wrong.append(1)

    threads = [threading.Thread(target=look) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


# --- what PNG says in chunks ---------------------------------------------------------------------------------


def gamma(value: float) -> tuple[bytes, bytes]:
    return b"gAMA", struct.pack(">I", round(value * 100_000))


def test_gamma() -> None:
    stored = np.arange(256, dtype=np.uint8).reshape(16, 16)
    plain = saved(Image.fromarray(stored), "PNG")
    found = seen(with_chunks(plain, gamma(1.0)))[..., 0]
    assert np.abs(found - srgb_of(stored / 255)).max() <= 2
    for same in (1 / 2.2, 0.45455, 0.47):
        assert (seen(with_chunks(plain, gamma(same)))[..., 0] == stored).all()
    for nonsense in (0, 0.001, 40_000):
        assert (seen(with_chunks(plain, gamma(nonsense)))[..., 0] == stored).all()


def test_srgb_wins_over_gamma_and_a_profile_over_both() -> None:
    stored = np.arange(256, dtype=np.uint8).reshape(16, 16)
    plain = saved(Image.fromarray(stored), "PNG")
    assert (seen(with_chunks(plain, (b"sRGB", b"\0"), gamma(1.0)))[..., 0] == stored).all()
    both = with_chunks(saved(Image.fromarray(noise(32, 32, 3)), "PNG", icc_profile=p3()), gamma(1.0))
    assert (seen(both) == seen(saved(Image.fromarray(noise(32, 32, 3)), "PNG", icc_profile=p3()))).all()


def test_primaries_beside_gamma() -> None:
    plain = saved(Image.fromarray(noise(32, 32, 3)), "PNG")
    points = struct.pack(">8I", *(round(one * 100_000) for one in P3))
    found = seen(with_chunks(plain, gamma(1 / 2.2), (b"cHRM", points)))
    assert (found == seen(saved(Image.fromarray(noise(32, 32, 3)), "PNG", icc_profile=p3()))).all()
    usual = struct.pack(">8I", *(round(one * 100_000) for one in REC709))
    assert (seen(with_chunks(plain, gamma(1 / 2.2), (b"cHRM", usual))) == noise(32, 32, 3)).all()


@pytest.mark.parametrize("points", [(0,) * 8, (4_000_000_000,) * 8, (31270, 32900, *(30000, 30000) * 3), (1,) * 8])
def test_primaries_that_no_screen_has(points: tuple[int, ...]) -> None:
    data = with_chunks(
        saved(Image.fromarray(noise(32, 32, 3)), "PNG"), gamma(0.8), (b"cHRM", struct.pack(">8I", *points))
    )
    assert (seen(data) == noise(32, 32, 3)).all()


def test_cicp() -> None:
    plain = saved(Image.fromarray(noise(32, 32, 3)), "PNG")
    assert (seen(with_chunks(plain, (b"cICP", bytes([1, 13, 0, 1])))) == noise(32, 32, 3)).all()
    found = seen(with_chunks(plain, (b"cICP", bytes([12, 13, 0, 1]))))
    assert (found == seen(saved(Image.fromarray(noise(32, 32, 3)), "PNG", icc_profile=p3()))).all()
    assert open_image(with_chunks(plain, (b"cICP", bytes([9, 16, 0, 1])))).caution == HDR
    for unknown in ([2, 2, 0, 1], [12, 13, 0, 0], [99, 99, 99, 1]):
        assert (seen(with_chunks(plain, (b"cICP", bytes(unknown)))) == noise(32, 32, 3)).all()


# --- CMYK ----------------------------------------------------------------------------------------------------


def cmyk_profile() -> bytes:
    """Return a profile for inks, put together by hand: a table from four inks to Lab, two points to each ink."""
    values = b""
    for c in (0, 1):
        for m in (0, 1):
            for y in (0, 1):
                for k in (0, 1):
                    lightness = 0 if k else 100 - 25 * (c + m + y)
                    lab = (
                        lightness * 655.35,
                        32896 + (m - c) * 40 * 257 * (1 - k),
                        32896 + (y - m) * 40 * 257 * (1 - k),
                    )
                    values += struct.pack(">3H", *(round(min(one, 65535)) for one in lab))
    line = struct.pack(">2H", 0, 65535)
    table = b"mft2\0\0\0\0" + bytes([4, 3, 2, 0]) + struct.pack(">9i", 65536, 0, 0, 0, 65536, 0, 0, 0, 65536)
    table += struct.pack(">2H", 2, 2) + line * 4 + values + line * 3
    white = b"XYZ \0\0\0\0" + struct.pack(">3i", 63190, 65536, 54061)
    start = 132 + 24
    head = struct.pack(">I4sI4s4s4s", start + len(table) + 20, b"\0" * 4, 0x02400000, b"prtr", b"CMYK", b"Lab ")
    head += struct.pack(">6H4s", 2026, 1, 1, 0, 0, 0, b"acsp") + bytes(28) + struct.pack(">3i", 63190, 65536, 54061)
    index = b"A2B0" + struct.pack(">II", start + 20, len(table)) + b"wtpt" + struct.pack(">II", start, 20)
    return head.ljust(128, b"\0") + struct.pack(">I", 2) + index + white + table


@pytest.mark.parametrize("kind", ["JPEG", "TIFF"])
def test_cmyk_by_its_profile(kind: str) -> None:
    inks = np.zeros((32, 32, 4), np.uint8)
    inks[:16, :, 0] = 255  # cyan above, nothing below
    data = saved(Image.frombytes("CMYK", (32, 32), inks.tobytes()), kind, icc_profile=cmyk_profile())
    found, stored = seen(data), seen(data, color="as-stored")
    assert (stored[0, 0] <= [3, 255, 255]).all() and (stored[0, 0] >= [0, 252, 252]).all()  # the naive formula
    assert 60 < found[0, 0, 1] < 240 and abs(found[0, 0] - stored[0, 0]).max() > 20
    assert (found[31, 31] > 250).all()


def test_the_profile_of_a_jpeg_in_jpeg_xl_is_used_too(tmp_path: Path) -> None:
    pytest.importorskip("pillow_jxl")
    Image.new("RGB", (40, 40), (200, 60, 30)).save(tmp_path / "a.jpg", quality=95, icc_profile=p3())
    with Image.open(tmp_path / "a.jpg") as jpeg:
        jpeg.save(tmp_path / "a.jxl", "JXL", lossless_jpeg=True)
    converted, stored = (
        [seen(tmp_path / name, color=color)[20, 20].tolist() for name in ("a.jpg", "a.jxl")]
        for color in ("srgb", "as-stored")
    )
    assert converted[0] == converted[1] != stored[0] == stored[1]
