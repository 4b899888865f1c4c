"""The paper (arXiv 2606.16799): tensors in, tensors out; imports nothing of ours but the errors.

The files follow the figure, left to right: ``preprocess`` (image to pixels), ``clip`` (the frozen towers),
``mstfe`` (pixels to features), ``gff`` (the gated fusion), ``heads`` (fused feature to score), ``mst_clipiqa``
(the trained part as one module) and ``loss``.

=========  ==============================  ================================================================
symbol     shape                           meaning
=========  ==============================  ================================================================
f_c, f_f   (batch, D)                      projected [CLS] embedding of the coarse and of the fine encoder
g          (batch, D), in (0, 1)           gate: the share of the coarse stream, a value a dimension
z          (batch, D)                      fused feature
t_k        (5, D), unit length             text embedding of the template of level k
p          (batch, 5)                      probability of each level
T, m       (batch, L, D), (batch, L)       token states of the prompt, and which of them are real
q          (batch,)                        predicted score on the head's scale, 1..5
=========  ==============================  ================================================================
"""
