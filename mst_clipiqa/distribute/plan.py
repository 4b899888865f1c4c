"""What to score: inputs of every kind -> images that any machine can open, in partitions."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from glob import glob, has_magic
from pathlib import Path

from mst_clipiqa.errors import DataError, UsageError, shown
from mst_clipiqa.features.pipeline import in_batches
from mst_clipiqa.inputs.expand import expand
from mst_clipiqa.inputs.item import Item, RemoteImage
from mst_clipiqa.tables.cells import utf8
from mst_clipiqa.tables.names import PROMPT_COLUMNS, is_image_name
from mst_clipiqa.tables.parquet_images import ParquetImage
from mst_clipiqa.tables.spelling import slashed
from mst_clipiqa.tables.stamps import changed_at, is_ahead
from mst_clipiqa.tables.stored import stored_rows
from mst_clipiqa.tables.tars import TarImage

_STORED = {kind.__name__: kind for kind in (TarImage, ParquetImage, RemoteImage)}


@dataclass(frozen=True)
class Partition:
    """Images that are scored and committed together.

    Attributes:
        name: name of the Parquet file that holds their rows.
        items: the images, as any machine finds them.
    """

    name: str
    items: tuple[Item, ...]

    def to_json(self) -> str:
        """Return the partition as JSON, to send to another machine."""
        kinds = [type(item.stored).__name__ for item in self.items]
        return json.dumps({"name": self.name, "items": [asdict(item) for item in self.items], "kinds": kinds})

    @staticmethod
    def from_json(text: str) -> Partition:
        """Return the partition that ``to_json`` wrote."""
        tree = json.loads(text)
        pairs = zip(tree["items"], tree["kinds"], strict=True)
        items = (one | {"stored": one["stored"] and _STORED[kind](**one["stored"])} for one, kind in pairs)
        return Partition(tree["name"], tuple(Item(**one) for one in items))


def item_key(item: Item) -> int:
    """Return a hash of file, prompt and frame, which identifies an item's row."""
    return row_key(item.file, item.prompt, item.frame)


def row_key(file: object, prompt: object, frame: int | None = None) -> int:
    """Return a 128-bit hash that identifies a row, the same on every machine."""
    parts = [utf8(str(file)), b"-" if prompt is None else b"+" + utf8(str(prompt))]
    named = b"\0".join(parts if frame is None else [*parts, str(frame).encode()])
    return int.from_bytes(hashlib.blake2b(named, digest_size=16).digest())


def partitions(
    items: Iterable[Item], size: int, done: Counter[int], taken: Collection[str] = (), written: int | None = None
) -> Iterator[Partition]:
    """Yield the items in partitions of at most ``size``, without the rows that are done.

    The same items give the same partitions, so two runs over them commit files with the same names. Names are
    unique even if rows are equal.

    Args:
        items: the images, in order.
        size: images per partition.
        done: how often each row, by its key, is done already.
        taken: names of the files that hold the done rows; no partition gets one of these names.
        written: when the last of those files was written, in ns.

    Raises:
        UsageError: an image was changed after all done rows, its own among them, were written.
    """
    left, numbers = done.copy(), Counter[str]()
    for dealt in in_batches(items, size):
        missing = []
        for item in dealt:
            if left[key := item_key(item)] > 0:
                left[key] -= 1
                if written is not None and (changed := changed_at(item.opened)) > written:
                    first = "correct its time, which is in the future, or " if is_ahead(changed) else ""
                    raise UsageError(
                        f"Expected images older than their rows in the output, got a newer one, {shown(item.file)}: "
                        f"{first}name another output."
                    )
            else:
                missing.append(item)
        if missing:
            yield Partition(_free_name(missing, numbers, taken), tuple(missing))


def _free_name(rows: Iterable[Item], numbers: Counter[str], taken: Collection[str]) -> str:
    """Return a name from the hash of the rows, with a number if other partitions have equal rows."""
    digest = hashlib.blake2b(b"".join(item_key(item).to_bytes(16) for item in rows), digest_size=10).hexdigest()
    while True:
        numbers[digest] += 1
        number = numbers[digest]
        name = f"part-{digest}.parquet" if number == 1 else f"part-{digest}-{number}.parquet"
        if name not in taken:
            return name


def items_in(given: str, *, recursive: bool = False) -> Iterator[Item]:
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
        return (item for one in found for item in items_in(str(one), recursive=recursive))
    return map(with_full_name, _in_tar(path) if _is_tar(path) else expand([given], recursive=recursive))


def _is_tar(path: Path) -> bool:
    return path.suffix.lower() == ".tar" and path.is_file()


def with_full_name(item: Item) -> Item:
    """Return an item of this machine with its image under a full name, by which any machine finds it."""
    if item.stored is not None:
        return replace(item, stored=replace(item.stored, path=str(Path.cwd() / item.stored.path)))
    return replace(item, path=str(Path.cwd() / item.path)) if item.path else item


def _in_tar(path: Path) -> Iterator[Item]:
    """Yield the images of a WebDataset shard with their prompts."""
    for row in stored_rows(path):
        if row.image is None:
            yield Item(slashed(path), None, problem=f"Expected a whole tar file, but {row.problem}: copy it again.")
            continue
        prompt = next((row.cells[name] for name in PROMPT_COLUMNS if name in row.cells), None)
        prompt = prompt.strip() or None if isinstance(prompt, str) else None
        problem = f"Expected an image and its texts, but {row.problem}." if row.problem else None
        yield Item(f"{slashed(path)}/{row.name}", None, prompt, problem, stored=row.image)


def _in_url(url: str) -> Iterator[Item]:
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
            yield Item(full, None, stored=RemoteImage(full))
