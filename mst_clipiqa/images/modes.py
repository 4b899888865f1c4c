"""Images of any mode, arrays and tensors -> 8-bit RGB on white."""

from __future__ import annotations

import math
import struct
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from PIL import Image

from mst_clipiqa.errors import ImageError

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray

_ORIENTATION = 0x0112  # the EXIF tag
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_DAMAGED = (ArithmeticError, EOFError, LookupError, OSError, SyntaxError, TypeError, ValueError, struct.error)
_ROWS = 256  # rows converted at a time, so that a deep image is never in memory as floats
_SLACK = 1e-4  # how far beyond [0, 1] arithmetic may carry the ends of a float tensor


def orientation(image: Image.Image) -> int:
    """Return the EXIF orientation of a loaded image, 1 to 8; 1 if it is missing or damaged."""
    try:
        value = image.getexif().get(_ORIENTATION, 1)
    except _DAMAGED:
        return 1  # damaged metadata is no reason to refuse good pixels
    return value if isinstance(value, int) and value in _TURNS else 1


def upright(image: Image.Image, turn: int) -> Image.Image:
    """Return the image turned as EXIF orientation ``turn`` says."""
    return image.transpose(_TURNS[turn]) if turn in _TURNS else image


def to_rgb(image: Image.Image, to_srgb: Callable[[Image.Image], Image.Image] | None = None) -> Image.Image:
    """Return a loaded image of any mode as a new RGB image of its own, transparent parts on white.

    16-bit grey is divided by 257. 32-bit integers and floats have no fixed white: values up to 1 (floats
    only), 255 and 65,535 are taken for images of that range, and anything else is refused.

    Args:
        image: loaded, of any mode.
        to_srgb: turns an image without alpha into RGB, colours included; None keeps the numbers as they are stored.
    """
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        image = _from_deep(image)
    if image.mode == "La":
        image = image.convert("LA")  # converted straight to RGBA, Pillow would drop the alpha
    if is_transparent(image):
        rgba = image.convert("RGBA")
        white = Image.new("RGB", image.size, (255, 255, 255))
        white.paste(to_srgb(rgba.convert("RGB")) if to_srgb else rgba, (0, 0), rgba)
        return white
    # A copy if it is RGB already; a plain image, which keeps no file open.
    rgb = to_srgb(image) if to_srgb else image.convert("RGB")
    rgb.info = {}
    return rgb


def is_transparent(image: Image.Image) -> bool:
    """Whether an image can have transparent parts."""
    if image.mode in ("LA", "PA", "RGBA", "RGBa"):
        return True
    if image.mode == "P" and image.palette is not None and image.palette.mode.endswith("A"):
        return True
    return image.mode in ("1", "L", "P", "RGB") and image.info.get("transparency") is not None


def _from_deep(image: Image.Image) -> Image.Image:
    """Return an image with 16 or 32 bits per pixel as 8-bit grey."""
    import numpy as np

    values = np.asarray(image)
    white = 65535 if image.mode.startswith("I;16") else _white(values, image)
    clear = image.info.get("transparency")
    grey = np.empty(values.shape, np.uint8)
    for top in range(0, len(values), _ROWS):
        rows = values[top : top + _ROWS]
        scaled = np.rint(rows * (255 / white))
        grey[top : top + _ROWS] = np.where(rows == clear, 255, scaled) if isinstance(clear, int) else scaled
    return Image.fromarray(grey)


def _white(values: NDArray[Any], image: Image.Image) -> int:
    """Return the value that stands for white among 32-bit values."""
    low, high = float(values.min()), float(values.max())
    if low >= 0 and high <= 1 and image.mode == "F":
        return 1
    if low >= 0 and high <= 65535:  # false for NaN
        # In some versions of Pillow, a 16-bit grey PNG has mode I; it is 16 bits deep however dark it is.
        return 255 if high <= 255 and image.format != "PNG" else 65535
    raise ImageError(
        f"Expected grey values in 0..1, 0..255 or 0..65535, got 32-bit values from {low:g} to {high:g}: "
        "save the image with 8 or 16 bits."
    )


def from_array(array: NDArray[Any]) -> Image.Image:
    """Return an array (H, W), (H, W, 3) or (H, W, 4) as a PIL image: uint8, or floats in [0, 1]."""
    import numpy as np

    if not (array.ndim == 2 or (array.ndim == 3 and array.shape[2] in (3, 4))) or 0 in array.shape:
        first = array.ndim == 3 and array.shape[0] in (3, 4)
        hint = "move the channels last" if first else "give one image"
        raise ImageError(f"Expected an array (H, W), (H, W, 3) or (H, W, 4), got {array.shape}: {hint}.")
    if np.issubdtype(array.dtype, np.floating):
        return Image.fromarray(_bytes_of(array))
    if array.dtype != np.uint8:
        raise ImageError(
            f"Expected an array of dtype uint8 (0..255) or floats in [0, 1], got {array.dtype}: scale and convert it."
        )
    return Image.fromarray(np.ascontiguousarray(array))


def from_tensor(tensor: torch.Tensor) -> Image.Image:
    """Return a float tensor (3, H, W) in [0, 1] as a PIL image."""
    check_dense(tensor)
    if tensor.ndim != 3 or tensor.shape[0] != 3 or 0 in tensor.shape:
        shape = tuple(tensor.shape)
        raise ImageError(f"Expected a tensor (3, H, W), got {shape}: give one RGB image, channels first.")
    if not tensor.is_floating_point():
        raise ImageError(f"Expected a float tensor in [0, 1], got {tensor.dtype}: divide it by 255.")
    return Image.fromarray(_bytes_of(tensor.detach().cpu().float().resolve_neg().numpy()).transpose(1, 2, 0).copy())


def check_dense(tensor: torch.Tensor) -> None:
    """Refuse a tensor without a shape or values of its own: nested, meta or sparse."""
    if tensor.is_nested or tensor.is_meta or "strided" not in str(tensor.layout):
        kind = "nested" if tensor.is_nested else "meta" if tensor.is_meta else str(tensor.layout)
        raise ImageError(f"Expected a dense tensor that holds values, got a {kind} one: convert it with to_dense().")


def check_ends(low: float, high: float) -> None:
    """Refuse floats whose smallest or largest value is not in [0, 1]."""
    if not (math.isfinite(low) and math.isfinite(high)):
        raise ImageError("Expected values in [0, 1], got NaN or infinity: find where they come from.")
    if low < -_SLACK or high > 1 + _SLACK:
        hint = "divide it by 255" if low >= 0 and 2 < high <= 255 else "scale or clamp it to [0, 1]"
        raise ImageError(f"Expected values in [0, 1], got values from {low:g} to {high:g}: {hint}.")


def _bytes_of(values: NDArray[Any]) -> NDArray[Any]:
    """Return floats in [0, 1] as 0..255."""
    import numpy as np

    check_ends(float(values.min()), float(values.max()))
    scaled: NDArray[Any] = np.rint(values.clip(0, 1) * 255).astype(np.uint8)
    return scaled


_thread = threading.local()


class _WhileQuiet(type):
    """Makes the class below a superclass of every warning, but only for a thread inside ``quiet()``."""

    def __subclasscheck__(cls, category: type) -> bool:
        return bool(getattr(_thread, "depth", 0))


class _AnyWarning(Warning, metaclass=_WhileQuiet):
    pass


@contextmanager
def quiet() -> Iterator[None]:
    """Suppress warnings of this thread, and of no other.

    ``warnings.catch_warnings`` would change the filters of all threads, and restore them in the wrong order.
    Here one filter is added to the process, once; it matches only warnings raised by a thread in this block.
    """
    if not warnings.filters or warnings.filters[0][2] is not _AnyWarning:
        warnings.simplefilter("ignore", category=_AnyWarning)
    _thread.depth = getattr(_thread, "depth", 0) + 1
    try:
        yield
    finally:
        _thread.depth -= 1
