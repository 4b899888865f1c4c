"""The table of rated sets: label files, columns, native ranges, prompt groups, folders, licences.

To add a set whose labels come as csv or xlsx, add an entry here; nothing else has to change.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from mst_clipiqa.data.record import Range
from mst_clipiqa.errors import UsageError, nearest
from mst_clipiqa.tables.names import FILE_COLUMNS, PROMPT_COLUMNS

RATED_TARGETS = ("quality", "correspondence", "authenticity", "overall")
"""What people rate, in all sets."""

Columns = tuple[str, ...]  # names of one column in the published copies; the first one found is read


@dataclass(frozen=True)
class LabelFile:
    """One label file of a set.

    Attributes:
        pattern: shell pattern of the file's name.
        positions: the columns in order, for copies published without a header row.
        split: the part of the official split that the whole file belongs to, if any.
    """

    pattern: str
    positions: tuple[str, ...] = ()
    split: str | None = None


@dataclass(frozen=True)
class SetInfo:
    """The layout of one rated set.

    Attributes:
        title: its name, for messages.
        files: its label files. With ``alternatives`` only the first that exists is read, else all of them.
        file_column: the column with the image's name.
        prompt_column: the column with the prompt.
        targets: target -> column of its mean opinion score.
        deviations: target -> column of its standard deviation.
        scales: the native scales that it is published in; of two, the values decide.
        name_rule: regular expression for an image's name, with the group ``generator`` and, if the set has them,
            ``setting``, ``id`` (of the prompt) and ``part`` (of the official split).
        group: what identifies a prompt: the id in the name, "object, action" of the prompt, or its text.
        style: where the style is: a "column", the "last part" of the prompt, or "" for nowhere.
        folders: folders that hold the images in the known layouts, in the root or the labels' folder.
        images: how an image's path follows from its name, one pattern per layout.
        alternatives: whether the label files replace each other.
        kept: name -> score, for names that are rated twice: the right one.
        decoys: files that look like the labels but are not -> why.
        licence: the terms of the set.
        citation: what to cite.
    """

    title: str
    files: tuple[LabelFile, ...]
    file_column: Columns
    prompt_column: Columns
    targets: dict[str, Columns]
    deviations: dict[str, Columns] = field(default_factory=dict)
    scales: tuple[Range, ...] = ((0.0, 5.0),)
    name_rule: str = ""
    group: Literal["id", "object and action", "prompt"] = "id"
    style: Literal["", "column", "last part"] = ""
    folders: tuple[str, ...] = ()
    images: tuple[str, ...] = ("{name}",)
    alternatives: bool = False
    kept: dict[str, float] = field(default_factory=dict)
    decoys: dict[str, str] = field(default_factory=dict)
    licence: str = ""
    citation: str = ""


FLAT = ("", "images", "image", "Images", "Image", "img", "imgs", "all", "All", "file")
"""Folders into which people unpack any set."""

AGIQA_1K = SetInfo(
    title="AGIQA-1K",
    files=(
        LabelFile("AIGC_MOS_Zscore.xlsx"),
        LabelFile("AIGC_MOS_Zscore.csv", ("Image", "Prompt", "MOS")),
        LabelFile("AIGC-1K_answer.csv"),
        LabelFile("all.csv", ("Image", "Prompt", "MOS")),
        LabelFile("full.csv", ("Image", "Prompt", "MOS")),
    ),
    alternatives=True,
    file_column=("Image", "image", "name"),
    prompt_column=("Prompt", "prompt"),
    targets={"overall": ("MOS", "mos")},
    # the object and action numbers of the dreamStudio names do not follow the published list: never read them
    name_rule=r"(?P<generator>[^_]+)_.+",
    group="object and action",
    style="last part",
    folders=(*FLAT, "AGIQA-1K", "AGIQA-1K/file"),
    # one name occurs twice; 2.084 agrees with the raw mean (2.045), 0.441 agrees with no other image's
    kept={"dreamStudio_8_9_1_1.jpg": 2.084116},
    decoys={"AIGC_all.csv": "it holds raw means, whose ranks agree with the published MOS only to 0.81"},
    licence="MIT",
    citation="Zhang et al., A Perceptual Quality Assessment Exploration for AIGC Images, 2023, arXiv 2303.12618",
)

AGIQA_3K = SetInfo(
    title="AGIQA-3K",
    files=(LabelFile("data.csv"),),
    file_column=("name",),
    prompt_column=("prompt",),
    targets={"quality": ("mos_quality",), "correspondence": ("mos_align",)},
    deviations={"quality": ("std_quality",), "correspondence": ("std_align",)},
    # generator names hold dots (sd1.5): take the name apart at underscores only
    name_rule=r"(?P<setting>(?P<generator>[^_]+)_[^_]+)_(?P<id>\d{3})\.\w+",
    style="column",
    folders=(*FLAT, "AGIQA-3K", "AGIQA-3K/images"),
    licence="MIT",
    citation="Li et al., AGIQA-3K: An Open Database for AI-Generated Image Quality Assessment, 2023, arXiv 2306.04717",
)

AIGCIQA2023 = SetInfo(
    title="AIGCIQA2023",
    files=(LabelFile("all_set.csv"), LabelFile("DATA/MOS/mosz*.mat")),
    alternatives=True,
    file_column=("image_name",),
    prompt_column=("prompt",),
    targets={"quality": ("mosz1",), "authenticity": ("mosz2",), "correspondence": ("mosz3",)},
    deviations={"quality": ("SD1",), "authenticity": ("SD2",), "correspondence": ("SD3",)},
    scales=((0.0, 5.0), (0.0, 100.0)),  # the csv copies are the official .mat files divided by 20
    name_rule=r"(?P<generator>[^/]+)/(?P<id>\d{3})-(?P<copy>[1-4])\.png",
    folders=(
        "Image",
        "images",
        "Image/allimg",
        "allimg",
        "AIGCIQA2023/Image",
        "AIGCIQA2023/Image/allimg",
        "",
    ),
    images=("{name}", "{row}.png", "{generator}{base}"),
    licence="none stated",
    citation="Wang et al., AIGCIQA2023: A Large-scale Image Quality Assessment Database for AI Generated "
    "Images, 2023, arXiv 2307.00211",
)

AIGIQA_20K = SetInfo(
    title="AIGIQA-20K",
    files=(
        LabelFile("info_train*", ("name", "prompt", "mos"), "train"),
        LabelFile("info_val*", ("name", "prompt"), "validation"),
        LabelFile("info_test*", ("name", "prompt"), "test"),
        LabelFile("train.csv", ("impath", "mos", "label", "classname"), "train"),
        LabelFile("val.csv", ("impath", "mos", "label", "classname"), "validation"),
        LabelFile("test.csv", ("impath", "mos", "label", "classname"), "test"),
    ),
    file_column=("name", "impath"),
    prompt_column=("prompt",),
    targets={"overall": ("mos",)},
    name_rule=r"(?P<generator>.+)_(?P<number>\d+)\.\w+",  # greedy: LCM_SD1.5_0001.png is of LCM_SD1.5
    group="prompt",
    folders=("", "train", "val", "test", "all", "images", "AIGIQA-20K", "AIGIQA-20K/all"),
    licence="none stated",
    citation="Li et al., AIGIQA-20K: A Large Database for AI-Generated Image Quality Assessment, 2024, "
    "arXiv 2404.03407",
)

PKU_AIGIQA_4K = SetInfo(
    title="PKU-AIGIQA-4K, text-to-image half",
    files=(LabelFile("annotation.xlsx"), LabelFile("annotation.csv"), LabelFile("full.csv")),
    alternatives=True,
    file_column=("Generated_image",),
    prompt_column=("Text_prompt",),
    # the column MOS is the sum of these three, not a fourth opinion: not read
    targets={"quality": ("MOS_q",), "authenticity": ("MOS_a",), "correspondence": ("MOS_c",)},
    # every fourth image of a prompt (its copy "11") is the official test part
    name_rule=r"(?P<generator>SD|MJ|DALLE)_(?P<id>\d{4})_(?P<part>00|01|10|11)\.\w+",
    folders=(*FLAT, "T2I/All", "PKU-AIGIQA-4K/All", "PKU-AIGIQA-4K/T2I/All", "T2I/Generated_image/All"),
    licence="MIT",
    citation="Yuan et al., PKU-AIGIQA-4K: A Perceptual Quality Assessment Database for Both Text-to-Image "
    "and Image-to-Image AI-Generated Images, 2024, arXiv 2404.18409",
)

PLAIN = SetInfo(
    title="a table of your own",
    files=(LabelFile("*.csv", ("name", "prompt", "mos")),),
    file_column=FILE_COLUMNS,
    prompt_column=PROMPT_COLUMNS,
    targets={
        "quality": ("quality", "mos_quality", "mosz1", "mos_q"),
        "correspondence": ("correspondence", "mos_align", "mosz3", "mos_c", "alignment"),
        "authenticity": ("authenticity", "mosz2", "mos_a"),
        "overall": ("overall",),
    },
    deviations={
        "quality": ("std_quality", "std", "mos_std"),
        "correspondence": ("std_align", "std_correspondence"),
        "authenticity": ("std_authenticity",),
        "overall": ("std_overall",),
    },
    scales=(),  # unknown: given by the caller, or guessed from the values with a note
    group="prompt",
    folders=FLAT,
    images=("{name}", "{base}"),
    licence="your own",
)

OWN_FORMATS = ("csv", "imagefolder", "pyiqa", "parquet", "webdataset")
"""Formats for sets of your own."""

SETS: dict[str, SetInfo] = {
    "agiqa-1k": AGIQA_1K,
    "agiqa-3k": AGIQA_3K,
    "aigciqa2023": AIGCIQA2023,
    "aigiqa-20k": AIGIQA_20K,
    "pku-aigiqa-4k": PKU_AIGIQA_4K,
    **dict.fromkeys(OWN_FORMATS, PLAIN),
}
"""Name -> layout."""


def set_name(name: str) -> str:
    """Return a set's name as the table spells it; "AGIQA3K" and "agiqa_3k" are accepted too.

    Raises:
        UsageError: there is no such set.
    """
    known = {key.replace("-", ""): key for key in SETS}
    plain = name.casefold().replace("-", "").replace("_", "").replace(" ", "")
    if plain not in known:
        raise UsageError(
            f"Expected the name of a rated set ({', '.join(SETS)}), "
            f"got {name!r}{nearest(name.casefold(), SETS)}: correct it."
        )
    return known[plain]
