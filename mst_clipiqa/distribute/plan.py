"""What to score: inputs of every kind -> images that any machine can open, in partitions."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from dataclasses import asdict, dataclass, field
from glob import glob, has_magic
from pathlib import Path

from mst_clipiqa.errors import DataError, UsageError, shown
from mst_clipiqa.features.pipeline import in_batches
from mst_clipiqa.inputs.expand import expand
from mst_clipiqa.inputs.item import Item
from mst_clipiqa.tables.cells import Cell, utf8
from mst_clipiqa.tables.names import PROMPT_COLUMNS, is_image_name
from mst_clipiqa.tables.parquet_images import ParquetImage
from mst_clipiqa.tables.stored import stored_rows
from mst_clipiqa.tables.tars import TarImage


@dataclass(frozen=True)
class Source:
    """One image, and where any machine finds it.

    Attributes:
        file: the name in the table.
        path: path of the image, or of the tar or Parquet file that contains it; a URL if ``is_url``.
        prompt: its prompt, or None.
        problem: why it cannot be scored, or None.
        at: (offset, length) of the image in a tar shard, in bytes.
        cell: (column, row group, row in the group) of the image in a Parquet file.
        is_url: whether to open the path through fsspec.
        frame: of an animated image, from 0; None for the one that the settings name.
        more: the other columns of its row in a list.
    """

    file: str
    path: str | None
    prompt: str | None = None
    problem: str | None = None
    at: tuple[int, int] | None = None
    is_url: bool = False
    frame: int | None = None
    more: dict[str, Cell] = field(default_factory=dict)
    cell: tuple[str, int, int] | None = None

    @property
    def key(self) -> int:
        """A hash of file, prompt and frame, which identifies the row."""
        return row_key(self.file, self.prompt, self.frame)


@dataclass(frozen=True)
class Partition:
    """Images that are scored and committed together.

    Attributes:
        name: name of the Parquet file that holds their rows.
        sources: the images.
    """

    name: str
    sources: tuple[Source, ...]

    def to_json(self) -> str:
        """Return the partition as JSON, to send to another machine."""
        return json.dumps({"name": self.name, "sources": [asdict(source) for source in self.sources]})

    @staticmethod
    def from_json(text: str) -> Partition:
        """Return the partition that ``to_json`` wrote."""
        tree = json.loads(text)
        places = ("at", "cell")
        sources = (s | {name: tuple(s[name]) if s[name] else None for name in places} for s in tree["sources"])
        return Partition(tree["name"], tuple(Source(**s) for s in sources))


def row_key(file: object, prompt: object, frame: int | None = None) -> int:
    """Return a 128-bit hash that identifies a row, the same on every machine."""
    parts = [utf8(str(file)), b"-" if prompt is None else b"+" + utf8(str(prompt))]
    named = b"\0".join(parts if frame is None else [*parts, str(frame).encode()])
    return int.from_bytes(hashlib.blake2b(named, digest_size=16).digest())


def partitions(
    sources: Iterable[Source], size: int, done: Counter[int], taken: Collection[str] = ()
) -> Iterator[Partition]:
    """Yield the sources in partitions of at most ``size``, without the rows that are done.

    The same sources give the same partitions, so two runs over them commit files with the same names. Names are
    unique even if rows are equal.

    Args:
        sources: the images, in order.
        size: images per partition.
        done: how often each row, by its key, is done already.
        taken: names of the files that hold the done rows; no partition gets one of these names.
    """
    left, numbers = done.copy(), Counter[str]()
    for dealt in in_batches(sources, size):
        missing = []
        for source in dealt:
            if left[key := source.key] > 0:
                left[key] -= 1
            else:
                missing.append(source)
        if missing:
            yield Partition(_free_name(missing, numbers, taken), tuple(missing))


def _free_name(rows: Iterable[Source], numbers: Counter[str], taken: Collection[str]) -> str:
    """Return a name from the hash of the rows, with a number if other partitions have equal rows."""
    digest = hashlib.blake2b(b"".join(s.key.to_bytes(16) for s in rows), digest_size=10).hexdigest()
    while True:
        numbers[digest] += 1
        number = numbers[digest]
        name = f"part-{digest}.parquet" if number == 1 else f"part-{digest}-{number}.parquet"
        if name not in taken:
            return name


def sources(given: str, *, recursive: bool = False) -> Iterator[Source]:
    """Yield the images of an INPUT: a folder or list, Parquet, tar shards (a pattern is allowed), or a URL.

    Raises:
        UsageError: it names nothing that can be scored.
        DataError: a URL cannot be listed.
    """
    path = Path(given)
    if "://" in given:
        return _in_url(given)
    if has_magic(given) and not path.exists():
        found = sorted(Path(name) for name in glob(given))  # noqa: PTH207 - a Path globs below one folder
        if not found:
            raise UsageError(f"Expected files that match {shown(given)}, got none: check the pattern.")
        return (source for one in found for source in sources(str(one), recursive=recursive))
    if path.suffix.lower() == ".tar" and path.is_file():
        return _in_tar(path)
    return map(source_of, expand([given], recursive=recursive))


def source_of(item: Item) -> Source:
    """Return an item of this machine as any machine finds it."""
    stored = item.stored
    inside = stored.path if stored else item.path
    return Source(
        item.file,
        str(Path.cwd() / inside) if inside else None,
        item.prompt,
        item.problem,
        (stored.offset, stored.size) if isinstance(stored, TarImage) else None,
        frame=item.frame,
        more=dict(item.more),
        cell=(stored.column, stored.group, stored.row) if isinstance(stored, ParquetImage) else None,
    )


def _in_tar(path: Path) -> Iterator[Source]:
    """Yield the images of a WebDataset shard with their prompts."""
    for row in stored_rows(path):
        if not isinstance(row.image, TarImage):
            yield Source(str(path), None, problem=f"Expected a whole tar file, but {row.problem}: copy it again.")
            continue
        prompt = next((row.cells[name] for name in PROMPT_COLUMNS if name in row.cells), None)
        problem = f"Expected an image and its texts, but {row.problem}." if row.problem else None
        yield Source(
            f"{path}/{row.name}",
            str(path.absolute()),
            prompt.strip() or None if isinstance(prompt, str) else None,
            problem,
            (row.image.offset, row.image.size),
        )


def _in_url(url: str) -> Iterator[Source]:
    """Yield the images below a URL that fsspec can open, sorted by name."""
    try:
        import fsspec

        files, root = fsspec.core.url_to_fs(url)
        names = sorted(files.find(root))
    except ImportError as error:
        raise UsageError(f"Expected the package for {shown(url)}, got none ({error}): install it.") from error
    except Exception as error:  # storage packages raise errors of their own, such as NoCredentialsError
        raise DataError(
            f"Expected images at {shown(url)}, but it cannot be listed ({shown(error)}): check it."
        ) from error
    for name in names:
        if is_image_name(name):
            full = files.unstrip_protocol(name)
            yield Source(full, full, is_url=True)
