"""Data and thumbnails -> one HTML file that uses no network and runs no untrusted text."""

from __future__ import annotations

import base64
import hashlib
import html
import json
import re
from collections.abc import Iterator, Mapping
from functools import cache, cached_property
from importlib.resources import files
from pathlib import Path
from string import Template

from mst_clipiqa.errors import UsageError, counted, shown
from mst_clipiqa.report.data import ReportData
from mst_clipiqa.report.thumbnails import Thumbnails
from mst_clipiqa.tables.atomic import atomic

THUMBNAILS_PER_BLOCK = 50
"""Thumbnails per block of the page; a block is split only once one of its images is shown."""
THUMBNAIL_BLOCK = '<script type="text/plain" id="t{}">{}</script>\n'
EXPLANATION_BLOCK = '<script type="application/json" id="e{}">{}</script>\n'
SCRIPT_FILES = (
    "dom",
    "tools",
    "card",
    "tabs",
    "overview",
    "filters",
    "gallery",
    "explain",
    "viewer",
    "tables",
    "start",
)
"""The files of script/, in the order of the page."""
_SURROGATE = re.compile("[\ud800-\udfff]")


class Page:
    """The page without its thumbnails.

    Args:
        data: what it shows.
        limit: largest size in bytes, thumbnails included.
        why: explanations by row index, as ``to_block`` makes them.

    Raises:
        UsageError: the page exceeds its limit even without thumbnails.
    """

    def __init__(self, data: ReportData, limit: int, why: Mapping[int, str] | None = None) -> None:
        why = why or {}
        self.data = {**data, "chunk": THUMBNAILS_PER_BLOCK, "explained": list(why)}
        self._why = [EXPLANATION_BLOCK.format(row, block).encode() for row, block in why.items()]
        blocks = (
            (data["rows"] // THUMBNAILS_PER_BLOCK + 1) * (len(THUMBNAIL_BLOCK) + 8) + data["rows"] + 32
        )  # without the images
        fixed = [self._head.encode(), self._data_block, self._script, *self._why]
        self.budget = limit - sum(map(len, fixed)) - blocks
        if self.budget < 0:
            raise UsageError(
                f"Expected a page of at most {limit / 1e6:g} MB, but the table alone is larger: raise the limit or "
                "use fewer rows."
            )

    @cached_property
    def image_order(self) -> list[int]:
        """The rows in the order of their thumbnails: those of the first view come first."""
        strips = (index for strip in self.data["strips"] for index in strip["rows"])
        quality = self.data["quality"]
        rest = sorted(range(self.data["rows"]), key=lambda i: -9e9 if quality[i] is None else quality[i], reverse=True)
        return list(dict.fromkeys([*strips, *rest]))

    @cached_property
    def _head(self) -> str:
        """The page up to its data; its hashes allow only this style and this script."""
        css, js = _part("page.css"), _javascript()
        return Template(_part("page.html")).substitute(
            title=html.escape(self.data["title"]),
            summary=_summary(self.data),
            css=css,
            css_hash=_hash(css),
            js_hash=_hash(js),
        )

    @cached_property
    def _script(self) -> bytes:
        return f"<script>{_javascript()}</script>\n".encode()

    @cached_property
    def _data_block(self) -> bytes:
        order = {row: place for place, row in enumerate(self.image_order)}
        places = [order[row] for row in range(self.data["rows"])]
        block = to_block({**self.data, "thumbnail": places})
        return f'<script type="application/json" id="data">{block}</script>\n'.encode()

    def parts(self, thumbnails: Thumbnails) -> Iterator[bytes]:
        """Yield the file in pieces: what the first view needs comes first, thumbnails last."""
        yield self._head.encode()
        yield self._data_block
        yield self._script
        yield from self._why
        for start in range(0, len(thumbnails.images), THUMBNAILS_PER_BLOCK):
            lines = "\n".join(thumbnails.images[start : start + THUMBNAILS_PER_BLOCK])
            yield THUMBNAIL_BLOCK.format(start // THUMBNAILS_PER_BLOCK, lines).encode()
        yield b"</body>\n</html>\n"


def write_page(page: Page, thumbnails: Thumbnails, path: Path) -> int:
    """Write the page beside its place, then put it there in one step; return its size in bytes.

    Raises:
        UsageError: it cannot be written.
    """
    try:
        with atomic(path, sync=True) as file:
            for piece in page.parts(thumbnails):
                file.write(piece)
            size = file.tell()
    except OSError as error:
        raise UsageError(
            f"Expected to write the report to {shown(path)}, but: {error.strerror or error}; name another place."
        ) from error
    return size


def to_block(value: object) -> str:
    """Return JSON for a script element: no character in it can end the element.

    Lone surrogates, which file names may contain, are escaped, because UTF-8 cannot encode them.
    """
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    for sign in "<>&\u2028\u2029":
        text = text.replace(sign, f"\\u{ord(sign):04x}")
    return _SURROGATE.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


def _summary(data: ReportData) -> str:
    """Return the counts and means in one line, for a browser that does not run the script."""
    facts = [counted(data["rows"], "image"), f"{data['ok'].count(0):,} failed"]
    for target, (mean, low, high, _) in data["overall"].items():
        if mean is not None:
            scale = " ({:g} to {:g})".format(*data["ranges"][target]) if target in data["ranges"] else ""
            interval = "" if low is None else f", 95 % interval {low:.2f} to {high:.2f}"
            facts.append(f"mean {target}{scale} {mean:.2f}{interval}")
    return "; ".join(facts) + "."


@cache
def _javascript() -> str:
    """Return the files of the script as one function, whose names are not global; ``dom.js`` is also a module."""
    parts = "\n".join(_part(f"script/{name}.js").replace("\nexport ", "\n") for name in SCRIPT_FILES)
    return f'"use strict";\n(() => {{\n{parts}}})();\n'


def _part(name: str) -> str:
    return (files("mst_clipiqa.report") / name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
