"""Images inside tars and Parquet: rows as written, nothing unpacked, and hostile files as rows that say so."""

from __future__ import annotations

import io
import json
import os
import tarfile
import threading
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from mst_clipiqa.analysis.images import ImageFinder
from mst_clipiqa.data import load_rated_set
from mst_clipiqa.data.copies import identical
from mst_clipiqa.errors import DataError, ImageError
from mst_clipiqa.features.image_encoder import ImageEncoder
from mst_clipiqa.images.files import read_image
from mst_clipiqa.inputs.expand import expand
from mst_clipiqa.scoring.score_rows import FurtherColumns, score_rows
from mst_clipiqa.scoring.scorer import Scorer
from mst_clipiqa.tables import parquet_images, tars
from mst_clipiqa.tables.stored import is_stored, stored_rows
from mst_clipiqa.tables.table import TableWriter
from mst_clipiqa.train.contamination import trained_on
from mst_clipiqa.train.features import encode_records
from tests.fakes import FakePair
from tests.serving import png, toy_scorer

IMAGES = [png(seed, seed / 5) for seed in range(5)]


@pytest.fixture(scope="module")
def scorer() -> Scorer:
    return toy_scorer()


def tar_of(path: Path, members: dict[str, bytes | tarfile.TarInfo]) -> Path:
    with tarfile.open(path, "w") as tar:
        for name, data in members.items():
            if isinstance(data, tarfile.TarInfo):
                tar.addfile(data)
                continue
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


def parquet_of(path: Path, columns: dict[str, Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), path, row_group_size=2)
    return path


def shard(path: Path) -> Path:
    """A shard with a text, a JSON, both, neither, and a sample that holds no image."""
    members: dict[str, bytes | tarfile.TarInfo] = {
        "a/00.png": IMAGES[0],
        "a/00.txt": b"a red fox\n",
        "a/01.json": json.dumps({"caption": "two chairs", "seed": 7, "mos": 3.5}).encode(),
        "a/01.png": IMAGES[1],
        "a/02.png": IMAGES[2],
        "a/02.json": b'{"prompt": "from the json", "mos": 1, "version": 7.50}',
        "a/02.txt": b"from the text",
        "a/03.cls": b"3",
        "a/03.png": IMAGES[3],
        "README.md": b"no image",
    }
    return tar_of(path, members)


def test_a_tar_gives_images_with_their_texts(tmp_path: Path) -> None:
    rows = list(stored_rows(shard(tmp_path / "s.tar")))
    assert [row.image.read_bytes() if row.image else None for row in rows] == IMAGES[:4]
    assert [(row.name, row.cells) for row in rows] == [
        ("a/00.png", {"prompt": "a red fox"}),
        ("a/01.png", {"caption": "two chairs", "seed": 7, "mos": 3.5}),
        ("a/02.png", {"prompt": "from the text", "mos": 1, "version": 7.5}),
        ("a/03.png", {}),
    ]
    assert repr(rows[2].cells["version"]) == "7.50"
    assert not any(row.problem for row in rows)
    assert [path.name for path in tmp_path.iterdir()] == ["s.tar"]  # nothing was unpacked


def test_images_of_one_name_in_a_tar_are_told_apart(tmp_path: Path) -> None:
    path = tmp_path / "s.tar"
    with tarfile.open(path, "w") as tar:  # as `tar -r` leaves it, if it adds a sample again
        for name, data in (("a.png", IMAGES[0]), ("b.png", IMAGES[1]), ("a.txt", b"a fox"), ("a.png", IMAGES[2])):
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    rows = list(stored_rows(path))
    assert [row.name for row in rows] == ["a.png", "b.png", "member-4"]
    assert [row.cells for row in rows] == [{}, {}, {"prompt": "a fox"}]
    finder = ImageFinder([tmp_path])  # as filter and report find the image of a row
    found = [finder.find(f"s.tar/{row.name}") for row in rows]
    assert [image.read_bytes() for image in found if image is not None] == IMAGES[:3]


def test_parquet_gives_images_in_any_order_and_from_threads(tmp_path: Path) -> None:
    cells = {"bytes": IMAGES, "path": ["0.png", "1.png", None, "1.png", "4.png"]}
    image = pa.StructArray.from_arrays(list(map(pa.array, cells.values())), names=list(cells))
    tags = pa.array([["x"]] * 5)
    path = parquet_of(tmp_path / "p.parquet", {"image": image, "text": list("abcde"), "mos": range(5), "tags": tags})
    rows = list(stored_rows(path))
    assert [row.name for row in rows] == ["0.png", "1.png", "row-3", "row-4", "4.png"]  # unique
    assert [row.cells for row in rows] == [{"text": text, "mos": n} for n, text in enumerate("abcde")]
    found: dict[int, bytes] = {}

    def read(place: int) -> None:
        image = rows[place].image
        found[place] = image.read_bytes() if image else b""

    threads = [threading.Thread(target=read, args=(place,)) for place in (4, 0, 3, 1, 2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [found[place] for place in range(5)] == IMAGES
    assert len(parquet_images._groups) <= 2


@pytest.mark.parametrize("count", [3, 4])
def test_a_parquet_file_that_has_been_replaced_is_a_reason(count: int, tmp_path: Path) -> None:
    path = parquet_of(tmp_path / "p.parquet", {"image": IMAGES[:4]})
    images = [image for image, _ in parquet_images.parquet_cells(path)]
    assert images[0].read_bytes() == IMAGES[0]
    parquet_of(path, {"image": IMAGES[:count][::-1]})
    for image in images:
        with pytest.raises(OSError, match=r"p\.parquet' as it was when it was listed, got another file"):
            image.read_bytes()
        with pytest.raises(ImageError, match=r"^Expected '.*p\.parquet' as it was when .*: score it again\.$"):
            read_image(image)


def test_a_parquet_file_may_be_copied_after_it_was_listed(tmp_path: Path) -> None:
    path = parquet_of(tmp_path / "p.parquet", {"image": IMAGES})
    *_, (last, _) = parquet_images.parquet_cells(path)
    os.utime(path, ns=(10**18, 10**18))  # as on another machine
    assert last.read_bytes() == IMAGES[4]


@pytest.mark.parametrize("names", [("01.png", "10.png"), ("10.png", "01.png")])
def test_a_tar_that_has_been_replaced_is_a_reason(names: tuple[str, str], tmp_path: Path) -> None:
    path = tmp_path / "s.tar"
    data = [b"one image of this length", b"another of just as many."]
    images = [row.image for row in stored_rows(tar_of(path, dict(zip(("01.png", "10.png"), data, strict=True))))]
    tar_of(path, {**dict(zip(names, data, strict=True)), "11.png": IMAGES[0]})  # its headers have the same sums
    for image in images:
        assert image is not None
        if names[0] == "01.png":  # one that was only added to
            assert image.read_bytes() in data
        else:
            with pytest.raises(OSError, match=r"s\.tar' as it was when it was listed, got another file"):
                image.read_bytes()
            with pytest.raises(ImageError, match=r"^Expected '.*s\.tar' as it was when .*: score it again\.$"):
                read_image(image)


def test_parquet_of_plain_bytes_is_read_and_a_table_of_names_is_not_stored(tmp_path: Path) -> None:
    path = parquet_of(tmp_path / "b.parquet", {"jpg": pa.array(IMAGES, pa.large_binary())})
    assert [row.image.read_bytes() for row in stored_rows(path) if row.image] == IMAGES
    names = parquet_of(tmp_path / "names.parquet", {"file": ["a.png"], "prompt": ["a fox"]})
    assert not is_stored(names)


# -------------------------------------------------------------------------------------------------------- as an input


def test_score_reads_them_as_it_reads_files(scorer: Scorer, tmp_path: Path) -> None:
    prompts = ["a red fox", "two chairs", "from the text", None]
    want = [scorer(data, prompt) for data, prompt in zip(IMAGES[:4], prompts, strict=True)]
    path = shard(tmp_path / "s.tar")
    items = expand(str(path))
    assert items.count() == 4
    rows = list(score_rows(scorer, items, stamped=True, more=FurtherColumns(lambda item: dict(item.more))))
    assert [row["file"] for row in rows] == [f"{path}/a/0{number}.png" for number in range(4)]
    assert [(row["prompt"], row["status"]) for row in rows] == [(prompt, "ok") for prompt in prompts]
    assert [row["quality"] for row in rows] == [round(one.quality or 0, 6) for one in want]
    assert rows[1]["seed"] == 7 and rows[1]["mos"] == 3.5
    assert all(row["_stamp"] for row in rows)  # so that a later run knows that the tar has not changed

    parquet = parquet_of(tmp_path / "p.parquet", {"image": IMAGES[:4], "caption": prompts, "seed": [1, 2, 3, 4]})
    again = list(score_rows(scorer, expand(str(parquet)), more=FurtherColumns(lambda item: dict(item.more))))
    assert [row["file"] for row in again] == [f"{parquet}/row-{number}" for number in (1, 2, 3, 4)]
    for column in ("prompt", "quality", "correspondence"):
        assert [row[column] for row in again] == [row[column] for row in rows]
    assert [row["seed"] for row in again] == [1, 2, 3, 4]


def test_columns_may_begin_in_any_sample_of_a_tar(tmp_path: Path) -> None:
    assert expand(str(shard(tmp_path / "s.tar"))).columns == ["seed", "mos", "version"]


def test_decimal_numbers_and_truth_in_parquet_are_cells(tmp_path: Path) -> None:
    price = pa.array([Decimal("7.50")], pa.decimal128(5, 2))
    path = parquet_of(tmp_path / "p.parquet", {"image": IMAGES[:1], "price": price, "ok": [True]})
    (item,) = expand(str(path))
    assert item.more == {"price": 7.5, "ok": True}
    with TableWriter(tmp_path / "t.csv", list(item.more)) as table:
        table.append(item.more)
    assert (tmp_path / "t.csv").read_text() == "price,ok\n7.5,true\n"


def test_prompts_may_be_given_for_them(tmp_path: Path) -> None:
    path = shard(tmp_path / "s.tar")
    (tmp_path / "prompts.csv").write_text("file,prompt\n00.png,a\n01.png,b\n02.png,c\n03.png,d\n")
    found = [item.prompt for item in expand(str(path), prompts=tmp_path / "prompts.csv")]
    assert found == ["a", "b", "c", "d"]
    assert [item.prompt for item in expand(str(path), prompt="one")] == ["one"] * 4
    beside = [item.prompt for item in expand(str(path), prompts_from="sidecar")]
    assert beside == ["a red fox", "two chairs", "from the text", None]
    assert [item.prompt for item in expand(str(path), prompts_from="metadata")] == [None] * 4


# ------------------------------------------------------------------------------------------------------------ hostile


@pytest.mark.usefixtures("no_collection")
def test_a_bad_image_or_text_is_a_row_with_its_reason(scorer: Scorer, tmp_path: Path) -> None:
    link = tarfile.TarInfo("8.png")
    link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
    members: dict[str, bytes | tarfile.TarInfo] = {
        "../../1.png": b"no image",
        "/etc/2.png": b"",
        "3.png": IMAGES[0],
        "3.json": b"[1]",
        "4.png": IMAGES[0],
        "4.json": b"[" * 100_000,
        "5.png": IMAGES[0],
        "5.txt": b"x" * (tars.LONGEST_TEXT + 1),
        "6.png": IMAGES[0],
        "6.json": b'{"prompt": 7}',
        "7.png": IMAGES[0],
        "8.png": link,
    }
    path = tar_of(tmp_path / "s.tar", members)
    rows = list(score_rows(scorer, expand(str(path))))
    reasons = [str(row["reason"]) for row in rows]
    assert [row["status"] for row in rows] == ["error"] * 6 + ["ok"]  # the link is no image
    assert "got bytes that are none of these" in reasons[0]
    assert "got nothing (0 bytes)" in reasons[1]
    assert f"'3.json' in {str(path)!r} is not a JSON object" in reasons[2]
    assert "'4.json'" in reasons[3] and "is not a JSON object" in reasons[3]
    assert "1,048,577 bytes where 1,048,576 are the most" in reasons[4]
    assert "is not text: put it in quotes" in reasons[5]
    assert not (tmp_path.parent.parent / "1.png").exists()


def test_an_image_stored_with_holes_is_not_read_as_if_it_had_none(tmp_path: Path) -> None:
    holes = tarfile.TarInfo("0.png")
    holes.pax_headers = {"GNU.sparse.map": "0,8,1000,8", "GNU.sparse.size": "1008"}
    rows = list(stored_rows(tar_of(tmp_path / "s.tar", {"0.png": holes, "1.png": IMAGES[0]})))
    assert [bool(row.problem) for row in rows] == [True, False]
    assert "stored with holes" in str(rows[0].problem)


def test_parquet_that_has_fewer_rows_than_when_it_was_listed_is_an_image_that_cannot_be_read(tmp_path: Path) -> None:
    path = parquet_of(tmp_path / "p.parquet", {"image": IMAGES})
    *_, last = stored_rows(path)
    parquet_of(path, {"image": IMAGES[:2]})
    assert last.image is not None
    with pytest.raises(OSError, match=r"\S"):
        last.image.read_bytes()


def damaged(path: Path) -> str:
    *_, last = stored_rows(path)
    assert last.image is None
    return str(last.problem)


def test_a_damaged_tar_ends_in_a_row_that_says_so(scorer: Scorer, tmp_path: Path) -> None:
    path = tmp_path / "s.tar"
    whole = shard(path).read_bytes()
    path.write_bytes(whole[:700])
    assert "unexpected end of data" in damaged(path)
    *_, row = score_rows(scorer, expand(str(path)))
    assert row["status"] == "error" and "is damaged" in str(row["reason"])
    for content in (b"no tar at all " * 100, b"\x1f\x8b" + whole, b""):
        path.write_bytes(content)
        assert "is damaged" in damaged(path)
    (tmp_path / "folder.tar").mkdir()
    assert "no ordinary file" in damaged(tmp_path / "folder.tar")


def test_headers_that_lie_cost_nothing(tmp_path: Path) -> None:
    path = tmp_path / "s.tar"
    long = tarfile.TarInfo("././@LongLink")
    long.type, long.size = tarfile.GNUTYPE_LONGNAME, 10**9  # claims a name of a gigabyte
    path.write_bytes(long.tobuf(tarfile.GNU_FORMAT) + bytes(1024))
    assert "a header of 1,000,000" in damaged(path)
    long.size = 1
    path.write_bytes((long.tobuf(tarfile.GNU_FORMAT) + b"x" + bytes(511)) * 3000)  # headers of headers
    assert "is damaged" in damaged(path)
    back = tarfile.TarInfo("0.png")
    back.size = -1024  # leads back to itself
    path.write_bytes(back.tobuf(tarfile.GNU_FORMAT) + bytes(1024))
    assert "is damaged" in damaged(path)
    huge = tarfile.TarInfo("0.png")
    huge.size = 2**40  # claims a terabyte
    path.write_bytes(huge.tobuf(tarfile.GNU_FORMAT) + bytes(1024))
    first, *_ = stored_rows(path)
    assert first.image is not None
    with pytest.raises(OSError, match="1,099,511,627,776 bytes where"):
        first.image.read_bytes()


def test_damaged_parquet_and_empty_cells_are_named(
    scorer: Scorer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = parquet_of(tmp_path / "p.parquet", {"image": [IMAGES[0], None, b"no image"]})
    rows = list(score_rows(scorer, expand(str(path))))
    assert [row["status"] for row in rows] == ["ok", "error", "error"]
    assert "the column 'image' holds no bytes in this row" in str(rows[1]["reason"])
    assert "got bytes that are none of these" in str(rows[2]["reason"])
    monkeypatch.setattr(parquet_images, "MOST_IN_GROUP", 100)
    parquet_images._groups.clear()
    first, *_ = stored_rows(path)
    assert first.image is not None
    with pytest.raises(OSError, match="write the file with smaller ones"):
        first.image.read_bytes()
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(DataError, match="Expected a whole Parquet file"):
        list(stored_rows(path))


# -------------------------------------------------------------------------------------------------------- rated sets


def test_rated_sets_are_read_from_parquet_shards_and_tars(tmp_path: Path) -> None:
    for part, places in (("train", (0, 1)), ("test", (2, 0))):
        image = [{"bytes": IMAGES[place], "path": f"{place}.png"} for place in places]
        columns = {"image": image, "prompt": [f"thing {place}" for place in places], "mos": [1.0, 4.5]}
        parquet_of(tmp_path / "hf" / "data" / f"{part}-00000-of-00001.parquet", columns)
    rated = load_rated_set("parquet", tmp_path / "hf", score_range=(0, 5))
    assert [record.file.read_bytes() for record in rated.records] == [IMAGES[place] for place in (2, 0, 0, 1)]
    assert [record.split for record in rated.records] == ["test", "test", "train", "train"]
    assert [record.prompt for record in rated.records] == ["thing 2", "thing 0", "thing 0", "thing 1"]
    assert [record.targets for record in rated.records] == [{"quality": value} for value in (1.0, 4.5, 1.0, 4.5)]
    assert [[one.name for one in same] for same in identical(rated.records)] == [
        ["data/test-00000-of-00001.parquet/0.png", "data/train-00000-of-00001.parquet/0.png"]
    ]

    members: dict[str, bytes | tarfile.TarInfo] = {}
    for n in range(3):
        members |= {f"{n}.png": IMAGES[n], f"{n}.json": b'{"mos": 2}'}
    rated = load_rated_set("webdataset", tar_of(tmp_path / "s.tar", members), score_range=(0, 5))
    assert [(record.name, record.size) for record in rated.records] == [(f"{n}.png", len(IMAGES[n])) for n in range(3)]


def test_a_training_sees_in_a_tar_what_it_sees_in_files(tmp_path: Path) -> None:
    members: dict[str, bytes | tarfile.TarInfo] = {}
    for n, data in enumerate(IMAGES):
        (tmp_path / f"{n}.png").write_bytes(data)
        members |= {f"{n}.png": data, f"{n}.json": json.dumps({"prompt": f"thing {n}", "mos": n}).encode()}
    lines = ["file,prompt,mos", *(f"{n}.png,thing {n},{n}" for n in range(len(IMAGES)))]
    (tmp_path / "set.csv").write_text("\n".join(lines) + "\n")
    loaded = [
        load_rated_set("csv", tmp_path / "set.csv", score_range=(0, 5)),
        load_rated_set("webdataset", tar_of(tmp_path / "s.tar", members), score_range=(0, 5)),
    ]
    files, stored = (encode_records(ImageEncoder(FakePair()), rated.records, prompts=True) for rated in loaded)
    assert torch.equal(files.f_c, stored.f_c) and torch.equal(files.f_f, stored.f_f)
    assert trained_on(loaded[0].records) == trained_on(loaded[1].records)  # hashes of images and prompts


def test_an_image_folder_may_have_its_metadata_in_parquet(tmp_path: Path) -> None:
    (tmp_path / "0.png").write_bytes(IMAGES[0])
    parquet_of(tmp_path / "metadata.parquet", {"file_name": ["0.png"], "text": ["a fox"], "mos": [3.0]})
    (record,) = load_rated_set("imagefolder", tmp_path, score_range=(0, 5)).records
    assert (record.file, record.prompt, record.targets) == (tmp_path / "0.png", "a fox", {"quality": 3.0})


@pytest.mark.parametrize("form", ["parquet", "webdataset"])
def test_a_set_that_is_missing_or_damaged_is_refused(form: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"Expected files with images that end in \.(parquet|tar)"):
        load_rated_set(form, tmp_path)
    path = tmp_path / ("s.tar" if form == "webdataset" else "s.parquet")
    whole = shard(path) if form == "webdataset" else parquet_of(path, {"image": IMAGES, "mos": [1.0] * 5})
    path.write_bytes(whole.read_bytes()[:700])
    with pytest.raises(DataError, match="damaged"):
        load_rated_set(form, tmp_path)
