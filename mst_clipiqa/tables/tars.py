"""WebDataset tars: members with the same base name are one sample, an image with its texts.

Members are never extracted: their names are only shown, and an image is a range of bytes of the tar.
"""

from __future__ import annotations

import tarfile
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

from mst_clipiqa.errors import StoredError, shown
from mst_clipiqa.tables.cells import from_json, utf8
from mst_clipiqa.tables.names import UNREAD_SUFFIXES, is_image_name

LONGEST_TEXT = 2**20
"""The most bytes of a text that is read beside an image."""
MOST_BYTES = 512 * 2**20
"""The largest image that is read, in bytes."""

_LONGEST_HEADER = 2**24  # bytes; headers claim sizes that nobody checked
_DAMAGE = (
    tarfile.TarError,
    OSError,
    EOFError,
    RecursionError,
    ValueError,
    OverflowError,
)  # what a broken or hostile tar raises


@dataclass(frozen=True, slots=True)
class TarImage:
    """An image in a tar.

    Attributes:
        path: of the tar.
        name: of the member, valid Unicode; "member-12" if an image before it has the same.
        offset: of its first byte in the tar.
        size: in bytes.
        head: CRC-32 of the block before it, the last of its header, by which a tar that was replaced is noticed.
    """

    path: str
    name: str
    offset: int
    size: int
    head: int

    def read_bytes(self) -> bytes:
        """Return the file of the image; OSError if it is too large or the tar ends before it or was replaced."""
        if self.size > MOST_BYTES:
            raise OSError(f"{self.size:,} bytes where {MOST_BYTES:,} are the most")
        with Path(self.path).open("rb") as file:
            head = _head_before(file, self.offset)
            data = file.read(self.size)
        if len(data) < self.size:
            raise OSError(f"{self.path} ends within it")
        if head != self.head:
            raise StoredError(
                f"Expected {shown(self.path)} as it was when it was listed, got another file: score it again."
            )
        return data

    def is_file(self) -> bool:
        """Return whether the tar exists."""
        return Path(self.path).is_file()


@dataclass
class Sample:
    """Members with one base name.

    Attributes:
        images: the images, each with the reason why it cannot be used, or None.
        cells: the keys of the JSON, and "prompt" for the text, which wins.
        problem: what keeps all of them from being used, or None; without images, what is wrong with the tar.
    """

    images: list[tuple[TarImage, str | None]] = field(default_factory=list)
    cells: Mapping[str, Any] = field(default_factory=dict)
    problem: str | None = None


def tar_samples(path: Path) -> Iterator[Sample]:
    """Yield the samples with images, in order; if the tar is damaged, the last one has no images and says so.

    Only plain tars are read: decompress a ``.tar.gz`` first.
    """
    try:
        if not path.is_file():
            raise FileNotFoundError("no ordinary file")
        with path.open("rb") as raw, tarfile.open(fileobj=_BoundedReads(raw), mode="r:") as tar:  # type: ignore[call-overload]
            seen: set[str] = set()
            for members in _groups(tar):
                yield from _samples(tar, path, members, seen)
            _check_end(path, tar.offset)
    except _DAMAGE as error:
        yield Sample(problem=f"{shown(path)} is damaged ({shown(error)})")


class _BoundedReads:
    """An open file that refuses to read very much at once."""

    def __init__(self, file: BinaryIO) -> None:
        self.seek, self.tell = file.seek, file.tell
        self._file = file

    def read(self, size: int = -1) -> bytes:
        """Return the next bytes."""
        if not 0 <= size <= _LONGEST_HEADER:
            raise tarfile.ReadError(f"a header of {size:,} bytes")
        return self._file.read(size)


def _groups(tar: tarfile.TarFile) -> Iterator[dict[int, tarfile.TarInfo]]:
    """Yield the files with the same base name together, by their numbers among all members, as ``tar -t`` lists them.

    An error is raised after the files before it.
    """
    group: dict[int, tarfile.TarInfo] = {}
    broken: Exception | None = None
    number, before = 0, -1
    try:
        while (member := tar.next()) is not None:
            if tar.offset <= before:  # then tarfile would read the same members for ever
                raise tarfile.ReadError("a member of negative size")
            number, before = number + 1, tar.offset
            tar.members.clear()  # type: ignore[attr-defined]  # tarfile would keep them all
            is_of_macos = PurePosixPath(member.name).name.startswith("._")  # what its tar adds to each file
            if group and not is_of_macos and _base(member.name) != _base(next(iter(group.values())).name):
                yield group
                group = {}
            if member.isfile() and not is_of_macos:
                group[number] = member
    except _DAMAGE as error:
        broken = error
    yield group
    if broken:
        raise broken


def _check_end(path: Path, offset: int) -> None:
    """Raise ReadError if reading stopped before the end of the archive: tarfile takes a damaged header for the end.

    The end is two blocks of zeros. Some writers omit the second block, but none writes anything else there.
    """
    with path.open("rb") as file:
        file.seek(offset)
        end = file.read(2 * tarfile.BLOCKSIZE)
    if len(end) < tarfile.BLOCKSIZE or any(end):
        raise tarfile.ReadError(f"neither a header nor the end at byte {offset:,}")


def _samples(
    tar: tarfile.TarFile, path: Path, members: Mapping[int, tarfile.TarInfo], seen: set[str]
) -> Iterator[Sample]:
    """Yield the sample of some members, if it has images; if a text cannot be read, the error is raised after it."""
    sample, broken = Sample(), None
    for number, member in members.items():
        if is_image_name(member.name) or member.name.lower().endswith(UNREAD_SUFFIXES):
            name = utf8(member.name).decode()
            name = f"member-{number}" if name in seen else name  # such as one that `tar -r` has added again
            seen.add(name)
            head = _head_before(tar.fileobj, member.offset_data)  # type: ignore[arg-type]
            image = TarImage(str(path), name, member.offset_data, member.size, head)
            sparse = "is stored with holes: write the tar again" if getattr(member, "sparse", None) else None
            sample.images.append((image, sparse and f"{shown(name)} in {shown(path)} {sparse}"))
    if not sample.images:
        return
    try:
        sample.cells, sample.problem = _texts(tar, path, members.values())
    except _DAMAGE as error:
        broken = error
    yield sample
    if broken:
        raise broken


def _head_before(file: BinaryIO, offset: int) -> int:
    """Return the CRC-32 of the block before an offset, and leave the file at the offset."""
    file.seek(offset - tarfile.BLOCKSIZE)
    return zlib.crc32(file.read(tarfile.BLOCKSIZE))


def _texts(tar: tarfile.TarFile, path: Path, members: Iterable[tarfile.TarInfo]) -> tuple[dict[str, Any], str | None]:
    """Return the cells in the texts of a sample, and what is wrong with the texts."""
    cells: dict[str, Any] = {}
    prompt: str | None = None
    for member in members:
        suffix = PurePosixPath(member.name).suffix.lower()
        if suffix not in (".txt", ".json"):
            continue
        where = f"{shown(utf8(member.name).decode())} in {shown(path)}"
        if member.size > LONGEST_TEXT:
            return {}, f"{where} has {member.size:,} bytes where {LONGEST_TEXT:,} are the most"
        file = tar.extractfile(member)
        text = file.read().decode("utf-8-sig", "replace") if file else ""
        if suffix == ".txt":
            prompt = text.strip() or None
            continue
        try:
            tree = from_json(text)
        except (ValueError, RecursionError):
            tree = None
        if not isinstance(tree, dict):
            return {}, f"{where} is not a JSON object"
        cells |= tree
    return cells | ({"prompt": prompt} if prompt is not None else {}), None


def _base(name: str) -> str:
    """Return the base name that the members of one sample share: up to the first dot after the last slash."""
    head, slash, tail = name.rpartition("/")
    return head + slash + tail.partition(".")[0]
