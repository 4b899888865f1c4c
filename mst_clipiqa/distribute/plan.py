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
from mst_clipiqa.inputs.prompts import PromptFile
from mst_clipiqa.tables.cells import utf8
from mst_clipiqa.tables.names import FILE_COLUMNS, PROMPT_COLUMNS, is_image_name
from mst_clipiqa.tables.parquet import stream
from mst_clipiqa.tables.stored import stored_rows
from mst_clipiqa.tables.tars import TarImage


@dataclass(frozen=True)
class Source:
    """One image, and where any machine finds it.

    Attributes:
        file: the name in the table.
        path: path of the image, or of the tar shard that contains it; a URL if ``is_url``.
        prompt: its prompt, or None.
        problem: why it cannot be scored, or None.
        at: (offset, length) of the image in a tar shard, in bytes.
        is_url: whether to open the path through fsspec.
    """

    file: str
    path: str | None
    prompt: str | None = None
    problem: str | None = None
    at: tuple[int, int] | None = None
    is_url: bool = False

    @property
    def key(self) -> int:
        """A hash of file and prompt, which identifies the row."""
        return row_key(self.file, self.prompt)


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
        sources = (s | {"at": tuple(s["at"]) if s["at"] else None} for s in tree["sources"])
        return Partition(tree["name"], tuple(Source(**s) for s in sources))


def row_key(file: object, prompt: object) -> int:
    """Return a 128-bit hash that identifies a row, the same on every machine."""
    named = b"\0".join([utf8(str(file)), b"-" if prompt is None else b"+" + utf8(str(prompt))])
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
    """Yield the images of an INPUT: a folder or list, a Parquet list, tar shards (a pattern is allowed), or a URL.

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
    if path.suffix.lower() == ".parquet" and path.is_file():
        return _in_parquet(path)
    if path.suffix.lower() == ".tar" and path.is_file():
        return _in_tar(path)
    items = expand([given], recursive=recursive)
    where = Path.cwd()
    return (
        Source(item.file, str(where / item.path) if item.path else None, item.prompt, item.problem) for item in items
    )


def with_prompts(found: Iterable[Source], prompt: str | None, prompts: Path | None) -> Iterator[Source]:
    """Yield images with the one prompt, or with theirs in a file of prompts, if either is given.

    Raises:
        UsageError: both are given.
        DataError: the file cannot be used.
    """
    if prompt is not None and prompts is not None:
        raise UsageError("Expected one of --prompt and --prompts, got both: leave one out.")
    given = PromptFile(prompts, by_number=True) if prompts is not None else None
    return (_with_prompt(source, prompt, given) for source in found)


def _with_prompt(source: Source, prompt: str | None, given: PromptFile | None) -> Source:
    if given is None:
        return source if prompt is None else replace(source, prompt=prompt)
    try:
        return replace(source, prompt=given.find(source.file))
    except DataError as error:
        return replace(source, problem=source.problem or str(error))


def _in_parquet(path: Path) -> Iterator[Source]:
    """Yield the rows of a Parquet list; file names are relative to its folder."""
    for row in stream(path):
        names = {name.lower(): name for name in row}
        file_at = next((names[alias] for alias in FILE_COLUMNS if alias in names), None)
        prompt_at = next((names[alias] for alias in PROMPT_COLUMNS if alias in names), None)
        if file_at is None:
            raise UsageError(f"Expected a column file in {shown(path)}, got {shown(', '.join(row))}: rename one.")
        file, prompt = row[file_at], row[prompt_at] if prompt_at else None
        if not isinstance(file, str) or not file.strip():
            yield Source(str(path), None, problem="Expected a file in each row, got none.")
            continue
        at = path.parent / file
        yield Source(str(at), str(at.absolute()), prompt if isinstance(prompt, str) and prompt.strip() else None)


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
