"""Predictions against mean opinion scores: agreement, intervals, comparisons, coverage.

    measures.py     srcc, plcc, krcc, rmse
    logistic.py     plcc_logistic4, plcc_logistic5: PLCC after a logistic fit
    agreements.py   agreement: all of these at once, without plcc_logistic5
    resampling.py   bootstrap: resamples prompts, not images
    weighted.py     measure_over: the measures in many resamples at once
    means.py        mean_interval, unpaired_difference, share_interval, quantile_interval: over few prompts or many
    pairs.py        pair_accuracy, preference_accuracy: the better of two images of one prompt
    comparison.py   paired_difference, difference_over_prompts: is B better than A?
    baseline.py     generator_mean: a baseline that sees no image
    conformal.py    conformal_halfwidth, interval_coverage
    caution.py      UNFAMILIAR, FEW_GROUPS: below this familiarity, or number of prompts, a figure carries a caution
    familiarity.py  Reference, make_reference: how far features are from those of training
    widening.py     Widening, fit_widening: intervals that widen with that distance
    evaluation.py   evaluate: all of these as one dataclass that converts to JSON

Arrays in, numbers out. Needs only numpy, scipy and the errors of this package. A file is imported when one of its names
is first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mst_clipiqa.evaluate.agreements import Agreement, agreement
    from mst_clipiqa.evaluate.baseline import generator_mean
    from mst_clipiqa.evaluate.caution import UNFAMILIAR
    from mst_clipiqa.evaluate.comparison import Difference, difference_of, paired_difference
    from mst_clipiqa.evaluate.conformal import conformal_halfwidth, interval_coverage
    from mst_clipiqa.evaluate.evaluation import Evaluation, Extras, LabelAgreement, evaluate, json_ready, table
    from mst_clipiqa.evaluate.familiarity import Reference, make_reference
    from mst_clipiqa.evaluate.logistic import plcc_logistic4, plcc_logistic5
    from mst_clipiqa.evaluate.means import mean_interval
    from mst_clipiqa.evaluate.measures import krcc, plcc, rmse, srcc, why_undefined
    from mst_clipiqa.evaluate.pairs import PairAccuracy, pair_accuracy, preference_accuracy
    from mst_clipiqa.evaluate.resampling import Interval, Resampling, bootstrap
    from mst_clipiqa.evaluate.widening import HeldOut, Widening, fit_widening, grouped_quantile

__all__ = [
    "UNFAMILIAR",
    "Agreement",
    "Difference",
    "Evaluation",
    "Extras",
    "HeldOut",
    "Interval",
    "LabelAgreement",
    "PairAccuracy",
    "Reference",
    "Resampling",
    "Widening",
    "agreement",
    "bootstrap",
    "conformal_halfwidth",
    "difference_of",
    "evaluate",
    "fit_widening",
    "generator_mean",
    "grouped_quantile",
    "interval_coverage",
    "json_ready",
    "krcc",
    "make_reference",
    "mean_interval",
    "pair_accuracy",
    "paired_difference",
    "plcc",
    "plcc_logistic4",
    "plcc_logistic5",
    "preference_accuracy",
    "rmse",
    "srcc",
    "table",
    "why_undefined",
]

_IN_ORDER = (  # the files, in the order in which a name is looked for, so what scoring needs comes first
    *("caution", "familiarity", "widening"),
    *("measures", "logistic", "agreements", "conformal", "baseline", "resampling"),
    *("means", "pairs", "comparison", "evaluation"),
)


def __getattr__(name: str) -> object:
    """Import a public name on first use."""
    for module in _IN_ORDER if name in __all__ else ():
        found = vars(importlib.import_module(f"{__name__}.{module}"))
        if name in found:
            globals()[name] = found[name]
            return found[name]
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    """List the public names, imported or not."""
    return sorted(__all__)
