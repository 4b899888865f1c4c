"""Features on disk, so that each image and prompt is encoded only once.

The cache is one SQLite file, ``features.sqlite``: writes are atomic, processes can share it, and a kill at any moment
leaves it whole. A row's key is the hash of a prompt, or of an image's bytes with how they are opened and encoded. It is
of a *space*, the hash of all else that determines features: weights, view, versions, precision and type of device.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
import sqlite3
import threading
import weakref
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from mst_clipiqa.encoders.pair import EncoderPair
from mst_clipiqa.encoders.precision import ARITHMETIC_VERSION
from mst_clipiqa.errors import UsageError, shown
from mst_clipiqa.features.cache_place import CACHE_FILE, CACHE_VARIABLE
from mst_clipiqa.features.encoded import Encoded, EncodedPrompt
from mst_clipiqa.model.preprocess import PREPROCESSING_VERSION, ViewSpec

_log = logging.getLogger(__name__)
_WAIT_S = 60.0  # for another process that is writing
_NEWER = {"shorter", "squash", "resample", "own"}  # fields of a view that older caches do not have
_SCHEMA = """
CREATE TABLE IF NOT EXISTS spaces (space TEXT PRIMARY KEY, description TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS images (
    space TEXT, key TEXT, width INTEGER NOT NULL, height INTEGER NOT NULL,
    f_c BLOB NOT NULL, f_f BLOB NOT NULL, crc INTEGER NOT NULL, PRIMARY KEY (space, key)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS prompts (
    space TEXT, key TEXT, length INTEGER NOT NULL, flags INTEGER NOT NULL,
    tokens BLOB NOT NULL, crc INTEGER NOT NULL, PRIMARY KEY (space, key)) WITHOUT ROWID;
"""


@dataclass(frozen=True)
class Space:
    """The part of the cache that belongs to one encoder pair.

    Attributes:
        space: its name, a hash.
        description: the pair, its precision and its views, as JSON.
        images, prompts: number of each.
    """

    space: str
    description: str
    images: int
    prompts: int


class Cache:
    """The features of any number of encoder pairs in one file.

    Once it is open, no run stops because of it: if its disk is full, or it turns out damaged, one warning in the log
    says so, and from then on features are neither looked for in it nor kept.

    Attributes:
        path: of the file.
        given_up: that warning, or None.
    """

    def __init__(self, folder: Path) -> None:
        """Open or create the cache in a folder; UsageError if that is impossible."""
        self.path = folder / CACHE_FILE
        self.given_up: str | None = None
        self._lock = threading.Lock()
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._db = sqlite3.connect(self.path, timeout=_WAIT_S, check_same_thread=False)
            weakref.finalize(self, self._db.close)  # nothing else closes a scorer's cache
            self._db.executescript("PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL;" + _SCHEMA)
        except (OSError, sqlite3.Error) as error:
            raise UsageError(
                f"Expected a folder for the cache that can be written, got {folder} ({error}): "
                f"choose another with --cache or {CACHE_VARIABLE}, or delete {CACHE_FILE} in it if it is damaged."
            ) from error

    def __reduce__(self) -> tuple[type[Cache], tuple[Path]]:
        """Return how to open the same cache in another process."""
        return Cache, (self.path.parent.absolute(),)

    def __enter__(self) -> Cache:
        """Return the cache itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the file."""
        self.close()

    def close(self) -> None:
        """Close the file; everything put into it is on disk already."""
        self._db.close()

    def space(self, encoders: EncoderPair) -> CacheSpace:
        """Return the part of a pair on its device, at its current precision; UsageError if it cannot be written."""
        described = json.dumps(
            {
                "source": encoders.source,
                "encoders": encoders.sha256,
                "precision": encoders.precision,
                "device": encoders.device.type,
                "preprocessing": PREPROCESSING_VERSION,
                "arithmetic": ARITHMETIC_VERSION,
                "view": _described(encoders.view),
            }
        )
        decides = {key: value for key, value in json.loads(described).items() if key != "source"}
        name = hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()
        with self.writing() as db:
            db.execute("INSERT OR IGNORE INTO spaces VALUES (?, ?)", (name, described))
        return CacheSpace(self, name)

    def info(self) -> list[Space]:
        """Return one ``Space`` for each pair of which the cache holds features."""
        query = """SELECT space, description,
            (SELECT count(*) FROM images p WHERE p.space = s.space),
            (SELECT count(*) FROM prompts p WHERE p.space = s.space) FROM spaces s ORDER BY description"""
        with self._named(), self._lock:
            found = [Space(*row) for row in self._db.execute(query)]
        try:
            for space in found:
                json.loads(space.description)
        except ValueError as error:
            raise self._damaged(error) from error
        return found

    def verify(self) -> tuple[int, int]:
        """Read every row; return how many there were, and how many were damaged and have been deleted.

        Raises:
            UsageError: the file itself is damaged.
        """
        seen, bad = 0, []
        with self._named(), self._lock:
            if (state := self._db.execute("PRAGMA integrity_check(1)").fetchone()[0]) != "ok":
                raise self._damaged(state)
        for table, blobs in (("images", "f_c, f_f"), ("prompts", "tokens, x''")):
            with self._named(), self._lock:
                for space, key, one, two, crc in self._db.execute(f"SELECT space, key, {blobs}, crc FROM {table}"):
                    seen += 1
                    is_blob = isinstance(one, bytes) and isinstance(two, bytes)
                    if not is_blob or zlib.crc32(two, zlib.crc32(one)) != crc:
                        bad.append((table, space, key))
        with self.writing() as db:
            for table, space, key in bad:
                db.execute(f"DELETE FROM {table} WHERE space = ? AND key = ?", (space, key))
        return seen, len(bad)

    def clear(self) -> int:
        """Delete everything; return how many images and prompts there were."""
        with self.writing() as db:
            count = sum(db.execute(f"DELETE FROM {table}").rowcount for table in ("images", "prompts"))
            db.execute("DELETE FROM spaces")
        with self._named(), self._lock:
            self._db.execute("VACUUM")
        return count

    @contextmanager
    def _named(self) -> Iterator[None]:
        """Turn the errors of a full or broken disk, and of a damaged file, into a UsageError."""
        try:
            yield
        except sqlite3.OperationalError as error:
            if getattr(error, "sqlite_errorcode", 0) == sqlite3.SQLITE_ERROR:  # other tables or columns
                raise self._damaged(error) from error
            raise UsageError(
                f"Expected a cache that can be used at {self.path}, got {error}: {_advice(error)}, or do without."
            ) from error
        except sqlite3.ProgrammingError as error:
            raise UsageError(f"Expected an open cache, got {shown(self.path)} closed: close it after use.") from error
        except sqlite3.DatabaseError as error:
            raise self._damaged(error) from error

    def _damaged(self, why: object) -> UsageError:
        state = str(why).splitlines()[-1]
        return UsageError(
            f"Expected a whole cache, got a damaged one ({state}): delete {shown(self.path)}, and its images will be "
            "encoded again."
        )

    @contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """Run one transaction: afterwards, all of it is on disk or none."""
        with self._named(), self._lock, self._db:
            yield self._db

    def row(self, query: str, values: Sequence[object]) -> tuple[object, ...] | None:
        """Return the first row that a query finds, or None."""
        found: tuple[object, ...] | None = None
        with self._given_up_on_error(), self._named(), self._lock:
            if self.given_up is None:
                found = self._db.execute(query, tuple(values)).fetchone()
        return found

    def put(self, query: str, rows: Sequence[Sequence[object]]) -> None:
        """Run a query that writes, once for each row: afterwards, all rows are on disk or none."""
        with self._given_up_on_error():
            if self.given_up is None:
                with self.writing() as db:
                    db.executemany(query, rows)

    @contextmanager
    def _given_up_on_error(self) -> Iterator[None]:
        """Let a first error be the last."""
        try:
            yield
        except UsageError as error:
            with self._lock:
                is_first = self.given_up is None
                self.given_up = self.given_up or f"{error} Until the next start, features are not cached."
            if is_first:
                _log.warning("%s", self.given_up)


class CacheSpace:
    """The rows of one pair of encoders; ``Cache.space`` makes it."""

    def __init__(self, cache: Cache, name: str) -> None:
        self.cache = cache
        self.name = name

    def get(self, key: str) -> Encoded | None:
        """Return an image's features, or None if there are none or the row is damaged."""
        row = self.cache.row(
            "SELECT width, height, f_c, f_f, crc FROM images WHERE space = ? AND key = ?", (self.name, key)
        )
        match row:
            case (int(width), int(height), bytes(f_c), bytes(f_f), int(crc)) if zlib.crc32(f_f, zlib.crc32(f_c)) == crc:
                return Encoded(_tensor(f_c), _tensor(f_f), width, height)
        return None

    def put(self, rows: Sequence[tuple[str, Encoded]]) -> None:
        """Keep features under their keys: all of them or, if killed halfway, none."""
        blobs = [(key, f, _bytes(f.f_c), _bytes(f.f_f)) for key, f in rows]
        self.cache.put(
            "INSERT OR REPLACE INTO images VALUES (?, ?, ?, ?, ?, ?, ?)",
            [(self.name, key, f.width, f.height, c, d, zlib.crc32(d, zlib.crc32(c))) for key, f, c, d in blobs],
        )

    def get_prompt(self, prompt: str) -> EncodedPrompt | None:
        """Return a prompt's token states, or None if there are none or the row is damaged."""
        query = "SELECT length, flags, tokens, crc FROM prompts WHERE space = ? AND key = ?"
        match self.cache.row(query, (self.name, _prompt_key(prompt))):
            case (int(length), int(flags), bytes(blob), int(crc)) if length and zlib.crc32(blob) == crc:
                tokens = _tensor(blob).view(length, -1)
                return EncodedPrompt(tokens, bool(flags & 1), bool(flags & 2), unread=bool(flags & 4))
        return None

    def put_prompts(self, prompts: Mapping[str, EncodedPrompt]) -> None:
        """Keep the token states of prompts: all of them or, if killed halfway, none."""
        rows = []
        for prompt, p in prompts.items():
            blob, flags = _bytes(p.tokens), p.truncated + 2 * p.in_vocabulary + 4 * p.unread
            rows.append((self.name, _prompt_key(prompt), len(p.tokens), flags, blob, zlib.crc32(blob)))
        self.cache.put("INSERT OR REPLACE INTO prompts VALUES (?, ?, ?, ?, ?, ?)", rows)


def _advice(error: sqlite3.OperationalError) -> str:
    """Return what helps; the low byte of SQLite's code names the kind of error."""
    kind = getattr(error, "sqlite_errorcode", 0) & 0xFF
    advice = {sqlite3.SQLITE_READONLY: "make it writable", sqlite3.SQLITE_BUSY: "wait for the other run"}
    return advice.get(kind, "free some space")


def image_key(data: bytes) -> str:
    """Return the part of a key that the bytes of an image file decide: their sha256, in hexadecimal."""
    return hashlib.sha256(data).hexdigest()


def _described(view: ViewSpec) -> dict[str, object]:
    """Return a view as part of a space's description, with newer fields only if they change the view."""
    usual, found = dataclasses.asdict(ViewSpec()), dataclasses.asdict(view)
    return {name: value for name, value in found.items() if name not in _NEWER or value != usual[name]}


def _prompt_key(prompt: str) -> str:
    return hashlib.sha256(prompt.encode("utf-8", "surrogatepass")).hexdigest()


def _bytes(tensor: Tensor) -> bytes:
    return tensor.detach().to(torch.float32).contiguous().numpy().astype("<f4").tobytes()


def _tensor(blob: bytes) -> Tensor:
    return torch.from_numpy(np.frombuffer(blob, dtype="<f4").astype(np.float32))
