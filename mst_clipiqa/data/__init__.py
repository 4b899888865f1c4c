"""Rated sets: read from the files they are published in, checked, and split by prompt.

    record.py        one rated image, and one rated set of them
    label_files.py   files on disk ............... -> rows of named cells (spreadsheets.py: of .xlsx)
    sets.py          the table: columns, native ranges, groups, folders of every set; aigciqa2023.py: of one in parts
    plain.py         the sets of your own ........ -> rows, likewise; stored_sets.py: of those that hold their images
    ratings.py       rows, table ................. -> ratings, records
    loading.py       name, folder ................ -> RatedSet             (load_rated_set)
    copies.py        records ..................... -> byte-identical images
    preferences.py   table of pairs .............. -> PreferenceSet        (load_preferences)
    splits.py        records ..................... -> Split                (make_split, leakage); links.py keeps
                     together what belongs together, split_files.py reads the splits that people publish
    survey.py        RatedSet .................... -> Survey               (printed by ``data check``)

Needs only the standard library; openpyxl is imported for .xlsx, scipy for .mat and pyarrow for .parquet, on the first
such file.
"""

from __future__ import annotations

from mst_clipiqa.data.copies import identical
from mst_clipiqa.data.loading import LikelyScales, load_rated_set, with_images
from mst_clipiqa.data.preferences import Preference, PreferenceSet, load_preferences
from mst_clipiqa.data.record import RatedSet, Record, rated_for, same_text
from mst_clipiqa.data.sets import RATED_TARGETS, SETS, SetInfo, set_name
from mst_clipiqa.data.splits import PARTS_OF_SPLIT, Split, TrainingPart, leakage, make_split

__all__ = [
    "PARTS_OF_SPLIT",
    "RATED_TARGETS",
    "SETS",
    "LikelyScales",
    "Preference",
    "PreferenceSet",
    "RatedSet",
    "Record",
    "SetInfo",
    "Split",
    "TrainingPart",
    "identical",
    "leakage",
    "load_preferences",
    "load_rated_set",
    "make_split",
    "rated_for",
    "same_text",
    "set_name",
    "with_images",
]
