"""What there is to score: one item per image, with its prompt."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from mst_clipiqa.images.files import MAX_BYTES
from mst_clipiqa.tables.cells import Cell
from mst_clipiqa.tables.stored import FileInFile


@dataclass(frozen=True)
class RemoteImage:
    """An image at a URL.

    Attributes:
        path: the URL.
        data: its file, if it has been fetched.
    """

    path: str
    data: bytes | None = None

    def fetched(self) -> RemoteImage:
        """Return the same image with its file; OSError if its storage does not give it."""
        return replace(self, data=self.read_bytes())

    def read_bytes(self) -> bytes:
        """Return the file of the image, read through fsspec; OSError if its storage does not give it."""
        if self.data is not None:
            return self.data
        import fsspec

        try:
            with fsspec.open(self.path, "rb") as file:
                return bytes(file.read(MAX_BYTES + 1))
        except OSError:
            raise
        except Exception as error:  # storage packages raise errors of their own
            raise OSError(str(error) or type(error).__name__) from error


@dataclass(frozen=True, slots=True)
class Item:
    """One row to come.

    Attributes:
        file: the image as the table shows it: the path from the current folder, in valid Unicode.
        path: what to open; None if there is nothing to open. Bytes that are not UTF-8 are surrogate escapes.
        prompt: text in valid Unicode, or None.
        problem: why this item cannot be scored, in one sentence, or None.
        frame: number of the frame to score, from 0; None leaves the choice to the scorer.
        more: the other columns of its row in a list or a file of prompts.
        stored: what to open in place of ``path``, if the image is inside another file or at a URL.
    """

    file: str
    path: str | None
    prompt: str | None = None
    problem: str | None = None
    frame: int | None = None
    more: Mapping[str, Cell] = field(default_factory=dict)
    stored: FileInFile | RemoteImage | None = None

    @property
    def opened(self) -> str | None:
        """Path or URL of the file that is opened, which may hold other images too; None if there is none."""
        return self.path if self.stored is None else self.stored.path

    @property
    def source(self) -> str | FileInFile | RemoteImage | None:
        """What to open; None if there is nothing to open."""
        return None if self.problem else self.stored or self.path
