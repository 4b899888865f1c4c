"""Muon: momentum whose every matrix step is made orthogonal, for the kernels of the towers.

Source: K. Jordan and others, "Muon: an optimizer for hidden layers in neural networks" (2024). Against AdamW alone it
reached the same training loss in fewer steps here (README.md).
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn


class Muon(torch.optim.Optimizer):
    """Steps for kernels and matrices; all else belongs to AdamW."""

    def __init__(self, params: Iterable[nn.Parameter], lr: float, momentum: float = 0.95, decay: float = 0.0) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "decay": decay})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:
        """Take one step along the orthogonalised Nesterov momentum."""
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is None:
                    continue
                state = self.state[p]
                if not state:
                    state["m"] = torch.zeros_like(p)
                m = state["m"].lerp_(p.grad, 1 - group["momentum"])
                step = orthogonal(p.grad.lerp(m, group["momentum"]).flatten(1)).view(p.shape)
                p.mul_(1 - group["lr"] * group["decay"])
                p.add_(step, alpha=-group["lr"] * max(1.0, p.shape[0] / p[0].numel()) ** 0.5)


def orthogonal(g: Tensor, steps: int = 5) -> Tensor:
    """Return about U V^T of g = U S V^T, by a quintic Newton-Schulz iteration in bf16."""
    a, b, c = 3.4445, -4.7750, 2.0315
    x = g.bfloat16()
    if tall := x.shape[0] > x.shape[1]:
        x = x.T
    x = x / (x.norm() + 1e-7)
    for _ in range(steps):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    return (x.T if tall else x).to(g.dtype)
