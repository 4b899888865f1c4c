"""The paper (arXiv 2606.16799): tensors in, tensors out. Of this package it imports only the errors.

The files follow the figure from left to right: ``preprocess`` (image to pixels), ``mstfe`` (pixels to features),
``gff`` (gated fusion), ``heads`` (fused feature to score), ``mst_clipiqa`` (the trained part as one module), ``loss``.

=========  ==============================  ================================================================
symbol     shape                           meaning
=========  ==============================  ================================================================
f_c, f_f   (batch, D)                      projected [CLS] embedding of the coarse and of the fine encoder
g          (batch, D), in (0, 1)           gate: the share of the coarse stream, per dimension
z          (batch, D)                      fused feature
t_k        (5, D), unit length             text embedding of the template of level k
p          (batch, 5)                      probability of each level
T, m       (batch, L, D), (batch, L)       token states of the prompt, and which are not padding
q          (batch,)                        predicted score on the head's scale, 1..5
=========  ==============================  ================================================================
"""
