"""Scoring on many machines with Ray Data: each row exactly once, even if machines die.

The items are divided into parts of a few hundred. Each actor loads the model once, scores a part and commits it as one
Parquet file by a rename. The file's name is a hash of its items, plus a number if parts are equal. A part that is done
twice because a machine died is thus the same file, and a run that is started again does only the missing parts. Ray
distributes the parts, holds them back while all actors are busy, and reassigns those of a dead machine.
"""

from mst_clipiqa.distribute.run import RUN_MANIFEST, ClusterJob, ClusterSummary, run

__all__ = ["RUN_MANIFEST", "ClusterJob", "ClusterSummary", "run"]
