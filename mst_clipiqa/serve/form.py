"""``multipart/form-data`` -> images, prompts and what else is asked, in memory: nothing is written to disk."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from io import BytesIO
from typing import Any

from python_multipart import MultipartParser
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import parse_options_header
from starlette.requests import Request

from mst_clipiqa.errors import Rejected, shown
from mst_clipiqa.serve.reading import Reservation, chunks
from mst_clipiqa.serve.settings import Limits

_IMAGE = ("image", "images")  # names of the field with a file
_PROMPT = ("prompt", "prompts")  # names of the field with text
_FILES, _NEGATIVE = ("reference", "control"), "negative"  # names of fields that a form has at most once
_CHARSETS = (b"utf-8", b"utf8", b"us-ascii")


@dataclass(frozen=True)
class Upload:
    """One image as it was sent.

    Attributes:
        name: its file name, as the client gave it.
        data: the bytes of the file.
    """

    name: str
    data: bytes


@dataclass(frozen=True)
class ControlUploads:
    """What is asked of every image of a request beside its prompt; None asks nothing.

    Attributes:
        negative: the negative prompt.
        reference: an image to compare with.
        control: a map of edges.
    """

    negative: str | None = None
    reference: Upload | None = None
    control: Upload | None = None


async def read_form(
    request: Request, limits: Limits, reservation: Reservation
) -> tuple[list[Upload], list[str], ControlUploads]:
    """Return the images and prompts of a form, and what else it asks.

    Raises:
        Rejected: the form is too large, too slow or malformed.
    """
    options = parse_options_header(request.headers["content-type"])[1]
    charset = options.get(b"charset", b"utf-8")
    if charset.lower() not in _CHARSETS:  # some of Python's codecs are slow, and some raise on what they cannot read
        raise Rejected(415, f"Expected text in UTF-8, got the charset {shown(charset.decode('latin-1'))}: send UTF-8.")
    if b"boundary" not in options:
        raise _malformed("it names no boundary")
    form = _Form(limits)
    try:
        parser = MultipartParser(
            options[b"boundary"],
            {
                "on_part_begin": form.begin_part,
                "on_header_field": form.add_header_name,
                "on_header_value": form.add_header_value,
                "on_header_end": form.end_header,
                "on_headers_finished": form.begin_data,
                "on_part_data": form.add_data,
                "on_part_end": form.end_part,
                "on_end": form.end,
            },
        )
        async for chunk in chunks(request, limits, reservation):
            parser.write(chunk)
        parser.finalize()
    except FormParserError as error:
        raise _malformed("it cannot be parsed") from error
    if not form.is_whole:
        raise _malformed("it ends too early")
    if form.unexpected is not None:
        raise Rejected(
            422,
            "Expected the fields image, reference and control (files), prompt and negative (text), got "
            f"{shown(form.unexpected)}: check its name and kind.",
        )
    return form.images, form.prompts, ControlUploads(**form.once)


class _Form:
    """Collects the fields of a form from the callbacks of a ``MultipartParser``.

    Attributes:
        images, prompts: the fields read so far.
        once: the fields that a form has at most once: negative, reference and control.
        unexpected: the name of the first field of another name or kind, or None.
        is_whole: whether the closing boundary was read; without this check, a truncated body would be accepted.
    """

    def __init__(self, limits: Limits) -> None:
        self.images: list[Upload] = []
        self.prompts: list[str] = []
        self.once: dict[str, Any] = {}
        self.unexpected: str | None = None
        self.is_whole = False
        self._limits = limits
        self._counts = Counter[bool]()  # of files (True) and of texts (False)

    def begin_part(self) -> None:
        self._name: str | None = None
        self._file_name: str | None = None
        self._data = BytesIO()
        self._header, self._value = b"", b""

    def add_header_name(self, data: bytes, start: int, end: int) -> None:
        self._header += data[start:end]

    def add_header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def end_header(self) -> None:
        if self._header.lower() == b"content-disposition":
            options = parse_options_header(self._value)[1]
            self._name = _text(options[b"name"]) if b"name" in options else None
            self._file_name = _text(options[b"filename"]) if b"filename" in options else None
        self._header, self._value = b"", b""

    def begin_data(self) -> None:
        if self._name is None:
            raise _malformed("a part has no name")
        is_file = self._file_name is not None
        if self._name in self.once and self.unexpected is None:
            raise Rejected(422, f"Expected the field {self._name} once, got it again: send one for all images.")
        self._counts[is_file] += self._name not in (*_FILES, _NEGATIVE)
        if self._counts[is_file] > self._limits.max_images:
            raise too_many("more", self._limits)
        known = (*_IMAGE, *_FILES) if is_file else (*_PROMPT, _NEGATIVE)
        if self._name not in known and self.unexpected is None:
            self.unexpected = self._name

    def add_data(self, data: bytes, start: int, end: int) -> None:
        if self.unexpected is not None:
            return
        self._data.write(data[start:end])
        if self._file_name is None and self._data.tell() > 4 * self._limits.max_prompt + 4:  # UTF-8: 4 bytes at most
            raise too_long("more", self._limits)

    def end_part(self) -> None:
        if self.unexpected is not None:
            return
        if self._file_name is None:
            self._keep(_text(self._data.getvalue()), self.prompts)
        elif self._file_name or self._data.tell():  # a browser sends an empty part for a field left empty
            self._keep(Upload(self._file_name, self._data.getvalue()), self.images)

    def _keep(self, value: Any, several: list[Any]) -> None:
        if self._name in _IMAGE + _PROMPT or self._name is None:
            several.append(value)
        else:
            self.once[self._name] = value

    def end(self) -> None:
        self.is_whole = True


def too_many(got: str, limits: Limits) -> Rejected:
    """Return the rejection of a request with too many images or prompts."""
    return Rejected(
        413, f"Expected at most {limits.max_images} images or prompts per request, got {got}: send several requests."
    )


def too_long(got: str, limits: Limits) -> Rejected:
    """Return the rejection of a prompt that is too long."""
    return Rejected(413, f"Expected prompts of at most {limits.max_prompt:,} characters, got {got}: shorten it.")


def _malformed(why: str) -> Rejected:
    return Rejected(400, f"Expected multipart/form-data, got a malformed body ({why}): check how it is encoded.")


def _text(data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError:
        return data.decode("latin-1")
