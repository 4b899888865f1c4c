"""How the embedded model is made: from nothing to ``mst_clipiqa/weights/mini``. See README.md in this folder."""
