"""How image files end, and what the columns with files and prompts are called in tables that people write."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".avif")
"""What the name of an image ends in, in lower case."""

UNREAD_SUFFIXES = (
    *(".heic", ".heif", ".hif", ".jxl", ".jp2", ".j2k", ".jpf", ".jpx", ".psd", ".psb", ".tga", ".ppm", ".pgm", ".pbm"),
    *(".pnm", ".pam", ".dds", ".apng", ".mpo", ".pjpeg", ".pjp", ".dib", ".avifs", ".ico", ".svg", ".exr", ".hdr"),
    *(".qoi", ".pcx", ".xcf", ".eps", ".dng", ".cr2", ".cr3", ".nef", ".arw", ".orf", ".rw2", ".raf"),
)
"""What the names of further images end in: some are read by their content, the others get a row that says why not."""

# The most common names first; case does not matter.
FILE_COLUMNS = (
    *("file", "file_name", "filename", "path", "file_path", "filepath", "img_path", "image_path", "impath"),
    *("image", "image_name", "img_name", "img", "name", "generated_image"),
)
PROMPT_COLUMNS = ("prompt", "text", "caption", "text_prompt")


def is_image_name(name: str) -> bool:
    """Return whether a file name ends as an image's does."""
    return name.lower().endswith(IMAGE_SUFFIXES)


def find_column(names: Sequence[str], aliases: Iterable[str]) -> int | None:
    """Return the place of the first of these names that a table has, or None; case does not matter."""
    known = {name.strip().lower(): at for at, name in reversed(list(enumerate(names)))}
    return next((known[alias] for alias in aliases if alias in known), None)
