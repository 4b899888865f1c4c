"""Scores over many machines with Ray Data; each row is written exactly once, whatever fails in between.

The images are split into partitions of a few hundred. An actor, which loads the model once, scores a partition and
commits it as one Parquet file by a rename. The file's name is a hash of its rows, with a number if partitions are
equal. A partition that is scored twice, because a machine died, is the same file twice, and a run that is started
again scores only the partitions that are missing. Ray assigns the partitions, applies back-pressure if the actors are
busy, and reassigns those of a dead machine.
"""

from mst_clipiqa.distribute.listing import Listing
from mst_clipiqa.distribute.run import ClusterJob, ClusterSummary, run
from mst_clipiqa.tables.parquet import RUN_MANIFEST

__all__ = ["RUN_MANIFEST", "ClusterJob", "ClusterSummary", "Listing", "run"]
