"""``python -m mst_clipiqa`` is the command ``mst-clipiqa``."""

from mst_clipiqa.cli import main

main()
