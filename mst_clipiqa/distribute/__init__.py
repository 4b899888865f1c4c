"""Scoring over many machines on Ray Data: each row exactly once, whatever dies in between.

The items are dealt into parts of a few hundred. An actor, which loads the model once, scores a part and commits it as
one Parquet file by a rename; the file's name is a hash of the items in it, numbered where parts are equal. So a part
that is done twice, because a machine died, is the same file twice, and a run that is started again does the parts that
are not there. Ray deals the parts out, holds them back where actors are busy, and deals again what a dead machine had.
"""

from mst_clipiqa.distribute.run import RUN_MANIFEST, ClusterJob, ClusterSummary, run

__all__ = ["RUN_MANIFEST", "ClusterJob", "ClusterSummary", "run"]
