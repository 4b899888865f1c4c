"""Colours as a file stores them -> sRGB, which is what the encoders were trained on.

An embedded ICC profile says what the stored numbers mean; so do the chunks cICP, and gAMA with cHRM, of a PNG. They are
read in this order, each only where those before it are missing, as browsers read them; the chunks are written as a
profile, so that one conversion does all. Nothing is said or changed for an image that carries none of them, nor for
one whose profile is sRGB by its effect.

Profiles are not trusted: their size is bounded, transforms are kept for a few of them only, and one that cannot be
used leaves the colours as they are stored, with a caution.
"""

from __future__ import annotations

import io
import struct
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

from PIL import Image, ImageCms

MOST_PROFILE: Final = 4 * 2**20
"""Bytes of a profile that is read; those of printing presses have 0.5 to 3 MB."""
UNUSABLE = "its colour profile cannot be used, so its colours are as stored"
HDR = "its colours are high dynamic range and are not tone-mapped"

_KEPT = 8  # transforms in memory, each below 4 MB
_INVISIBLE = 2  # of 255: a profile that moves no colour by more is sRGB, give or take rounding
_GRID_LEVELS = (0, 16, 32, 64, 96, 128, 160, 192, 224, 255)  # of each channel, where a conversion is tried
_SPACES = {"RGB ": "RGB", "GRAY": "L", "CMYK": "CMYK"}  # ICC's names, Pillow's modes
_GREY_MODES = ("1", "L", "LA", "La", "I", "F", "I;16", "I;16B", "I;16L", "I;16N")

_SRGB_WHITE = (0.3127, 0.3290)
_SRGB_PRIMARIES = (0.64, 0.33, 0.30, 0.60, 0.15, 0.06)
_SRGB_CURVE = (3, 2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045)  # ICC's parametric curve of type 3
_GAMMA_SLACK = 0.05  # libpng's: a gAMA this near 1/2.2 means sRGB
_NEAR = 0.005  # of a chromaticity
# Code points of cICP (ITU-T H.273): primaries with white first, and transfer curves.
_CICP_PRIMARIES = {
    1: _SRGB_WHITE + _SRGB_PRIMARIES,
    9: (*_SRGB_WHITE, 0.708, 0.292, 0.170, 0.797, 0.131, 0.046),  # BT.2020
    12: (*_SRGB_WHITE, 0.680, 0.320, 0.265, 0.690, 0.150, 0.060),  # Display P3
}
_CICP_CURVES = {
    **dict.fromkeys((1, 6, 13, 14, 15), _SRGB_CURVE),  # the curves of video are shown as sRGB, as browsers show them
    4: (0, 2.2),
    5: (0, 2.8),
    8: (0, 1.0),
}
_CICP_HDR = (16, 18)  # PQ and HLG


@dataclass(frozen=True)
class Conversion:
    """What to do with the pixels of an image before they are sRGB.

    Attributes:
        transform: Pillow's, from ``mode`` to RGB; None where nothing is to be done.
        mode: of the pixels that it takes: "RGB", "L" or "CMYK".
        caution: the warning for the image's row; empty if there is none.
    """

    transform: ImageCms.ImageCmsTransform | None = None
    mode: str = "RGB"
    caution: str = ""

    def __call__(self, image: Image.Image) -> Image.Image:
        """Return an image of any mode in sRGB, mode RGB, without its alpha."""
        if self.transform is None:
            return image.convert("RGB")
        return self.transform.apply(image if image.mode == self.mode else image.convert(self.mode))


NOTHING = Conversion()


def conversion(image: Image.Image, cicp: bytes = b"") -> Conversion:
    """Return how an image's colours become sRGB, according to its own metadata.

    Args:
        image: as Pillow opened it; only its mode and its ``info`` are looked at.
        cicp: the data of a PNG's cICP chunk, which Pillow does not read.
    """
    profile = image.info.get("icc_profile", b"")
    if profile is None:  # Pillow found one that is damaged
        return Conversion(caution=UNUSABLE)
    if isinstance(profile, bytes) and profile:
        return _of_profile(profile, image.mode)
    if len(cicp) == 4 and cicp[3] == 1:  # the fourth byte: full range, without which RGB is not what it says
        return _of_cicp(cicp[0], cicp[1], image.mode)
    if isinstance(nclx := image.info.get("nclx_profile"), dict):  # HEIC
        return _of_cicp(nclx.get("color_primaries"), nclx.get("transfer_characteristics"), image.mode)
    if image.format == "PNG" and "srgb" not in image.info and "gamma" in image.info:
        return _of_gamma(image.info["gamma"], image.info.get("chromaticity"), image.mode)
    return NOTHING


def _of_profile(profile: bytes, mode: str) -> Conversion:
    if len(profile) > MOST_PROFILE:
        return Conversion(caution=UNUSABLE)
    found = _transform(profile)
    if found.transform is None:
        return found
    # A profile of another kind than the pixels was left behind by a program that converted them.
    return found if found.mode in _spaces_of(mode) else NOTHING


def _spaces_of(mode: str) -> tuple[str, ...]:
    """Return the kinds of profile that can hold for pixels of a mode."""
    if mode == "CMYK":
        return ("CMYK",)
    if mode in _GREY_MODES:
        return ("L", "RGB")  # a grey image may carry the profile of its screen
    return () if mode in ("LAB", "HSV") else ("RGB",)


@lru_cache(maxsize=_KEPT)
def _transform(profile: bytes) -> Conversion:
    """Return the conversion that a profile asks for; whatever is wrong with it becomes a caution."""
    try:
        opened = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        mode = _SPACES.get(opened.profile.xcolor_space)
        if mode is None:
            return Conversion(caution=UNUSABLE)
        built = ImageCms.buildTransform(
            opened,
            ImageCms.createProfile("sRGB"),
            mode,
            "RGB",
            ImageCms.Intent.RELATIVE_COLORIMETRIC,
            # No memory of the last pixel: threads share a transform, and a colour depends on no neighbour.
            ImageCms.Flags.BLACKPOINTCOMPENSATION | ImageCms.Flags.NOCACHE,
        )
        made = Conversion(built, mode)
        return NOTHING if mode != "CMYK" and _changes_nothing(made) else made
    except (ImageCms.PyCMSError, OSError, TypeError, ValueError, MemoryError):
        return Conversion(caution=UNUSABLE)


def _changes_nothing(made: Conversion) -> bool:
    """Whether a conversion leaves every colour of a grid where it is."""
    tried = _grid() if made.mode == "RGB" else Image.frombytes("L", (256, 1), bytes(range(256)))
    before, after = tried.convert("RGB").tobytes(), made(tried).tobytes()
    return max(abs(a - b) for a, b in zip(before, after, strict=True)) <= _INVISIBLE


@lru_cache(maxsize=1)
def _grid() -> Image.Image:
    colours = bytes(value for r in _GRID_LEVELS for g in _GRID_LEVELS for b in _GRID_LEVELS for value in (r, g, b))
    return Image.frombytes("RGB", (len(colours) // 3, 1), colours)


def _of_gamma(gamma: float, chromaticity: Any, mode: str) -> Conversion:
    """Return the conversion of a PNG with gAMA: a sample is light to the power of gamma."""
    if not 0.1 <= gamma <= 10:
        return NOTHING  # nobody means this
    means_srgb = abs(gamma * 2.2 - 1) < _GAMMA_SLACK
    usual = _SRGB_WHITE + _SRGB_PRIMARIES
    points = usual if chromaticity is None else tuple(float(one) for one in chromaticity)
    if all(abs(a - b) < _NEAR for a, b in zip(points, usual, strict=True)):
        points = usual
    if means_srgb and points == usual:
        return NOTHING
    curve = _SRGB_CURVE if means_srgb else (0, 1 / gamma)
    return _of_curve(curve, points, mode)


def _of_cicp(primaries: object, transfer: object, mode: str) -> Conversion:
    if transfer in _CICP_HDR:
        return Conversion(caution=HDR)
    if not (isinstance(primaries, int) and isinstance(transfer, int)):
        return NOTHING
    if primaries not in _CICP_PRIMARIES or transfer not in _CICP_CURVES:
        return NOTHING
    return _of_curve(_CICP_CURVES[transfer], _CICP_PRIMARIES[primaries], mode)


def _of_curve(curve: tuple[float, ...], points: tuple[float, ...], mode: str) -> Conversion:
    profile = profile_of(curve, points)
    return NOTHING if profile is None else _of_profile(profile, mode)


def profile_of(curve: tuple[float, ...], points: tuple[float, ...]) -> bytes | None:
    """Return an ICC profile (version 4) for a curve and primaries, or None for points that no screen can have.

    Args:
        curve: type of ICC's parametric curve, then its numbers: (0, g) for light = sample ** g.
        points: x and y of white, red, green and blue.
    """
    columns = _colorants(points)
    return None if columns is None else _written(curve, columns)


def _colorants(points: tuple[float, ...]) -> list[list[float]] | None:
    """Return X, Y, Z of red, green and blue, seen in ICC's light D50; None for points that no screen can have.

    Args:
        points: x and y of white, red, green and blue.
    """
    import numpy as np

    xy = np.array(points, dtype=float).reshape(4, 2)
    if not np.isfinite(xy).all() or (xy[:, 1] < 1e-3).any() or (xy < 0).any() or (xy > 1).any():
        return None
    white, *primaries = [np.array([x / y, 1.0, (1 - x - y) / y]) for x, y in xy]
    matrix = np.array(primaries).T
    # From the light of the screen to D50, by Bradford's cones.
    cones = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])
    to, by = cones @ np.array([0.9642, 1.0, 0.8249]), cones @ white
    if abs(np.linalg.det(matrix)) < 1e-4 or (np.abs(by) < 1e-3).any():
        return None
    scaled = matrix * np.linalg.solve(matrix, white)
    adapted = np.linalg.solve(cones, np.diag(to / by) @ cones) @ scaled
    found: list[list[float]] = adapted.T.tolist()
    return found if np.abs(adapted).max() < 4 else None


def _written(curve: tuple[float, ...], colorants: list[list[float]]) -> bytes:
    """Return the bytes of a profile: its head, an index of its tags, and their data."""
    kind, *numbers = curve
    trc = b"para\0\0\0\0" + struct.pack(">HH", int(kind), 0) + _fixed(numbers)
    xyz = [b"XYZ \0\0\0\0" + _fixed(column) for column in ([0.9642, 1.0, 0.8249], *colorants)]
    data, index, body = [*xyz, trc], b"", b""
    names = (b"wtpt", b"rXYZ", b"gXYZ", b"bXYZ", b"rTRC", b"gTRC", b"bTRC")
    start = 128 + 4 + 12 * len(names)
    places = []
    for one in data:
        places.append((start + len(body), len(one)))
        body += one
    for name, place in zip(names, [*places, places[-1], places[-1]], strict=True):
        index += name + struct.pack(">II", *place)
    head = struct.pack(">I4sI4s4s4s", start + len(body), b"\0\0\0\0", 0x04300000, b"mntr", b"RGB ", b"XYZ ")
    head += struct.pack(">6H4s", 2026, 1, 1, 0, 0, 0, b"acsp") + bytes(28) + _fixed([0.9642, 1.0, 0.8249])
    return head.ljust(128, b"\0") + struct.pack(">I", len(names)) + index + body


def _fixed(numbers: list[float]) -> bytes:
    return b"".join(struct.pack(">i", round(number * 65536)) for number in numbers)
