"""SOAP: Adam in the eigenvectors of Shampoo's preconditioner (Vyas et al., ICLR 2025, https://arxiv.org/abs/2409.11321).

Denoising residuals is badly conditioned: the network has to carry the noise through to one part in a hundred before it
can take it away. So the gradient is turned into the eigenvectors of its own covariance, and scaled there as Adam does;
what that brought is in docs/training.md#the-run. Packages have it too: for
them a kernel's rows and columns are dimensions of their own, which here must not be.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor


class SOAP(torch.optim.Optimizer):
    """The optimizer; a kernel (out, in, height, width) is a matrix (out, in * height * width), a bias is plain Adam.

    Parameters
    ----------
    params : iterable of Tensor
    lr : float
    betas : (float, float)
        Decay of the mean of the gradient and of its square.
    covariance : float
        Decay of the covariances whose eigenvectors are used.
    weight_decay : float
        Decoupled, as in AdamW.
    every : int
        Steps between two looks at the eigenvectors: one step of orthogonal iteration each.

    Notes
    -----
    The first step only starts the covariances: there is nothing to scale by yet.
    """

    def __init__(
        self,
        params: Iterable[Tensor],
        lr: float,
        betas: tuple[float, float] = (0.95, 0.95),
        covariance: float = 0.95,
        weight_decay: float = 1e-4,
        every: int = 10,
    ) -> None:
        defaults = {"lr": lr, "betas": betas, "covariance": covariance, "weight_decay": weight_decay, "every": every}
        super().__init__(params, defaults)

    @torch.no_grad()
    def step(self, _closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Take one step."""
        for group in self.param_groups:
            for parameter in (parameter for parameter in group["params"] if parameter.grad is not None):
                self._step_of(parameter, group)

    def _step_of(self, parameter: Tensor, group: dict[str, Any]) -> None:
        state = self.state[parameter]
        gradient = parameter.grad.float().contiguous().view(len(parameter), -1)  # type: ignore[union-attr]
        if not state:
            state |= _started(gradient)
            return
        state["step"] += 1
        step = float(state["step"])
        first, second = group["betas"]
        state["exp_avg"].lerp_(gradient, 1.0 - first)
        turned, mean = gradient, state["exp_avg"]
        matrix = "rows" in state
        if matrix:
            turned = state["rows"].T @ gradient @ state["columns"]
            mean = state["rows"].T @ mean @ state["columns"]
        state["exp_avg_sq"].mul_(second).addcmul_(turned, turned, value=1.0 - second)
        scale = (state["exp_avg_sq"] / (1.0 - second**step)).sqrt_().add_(1e-8)
        change = mean / (1.0 - first**step) / scale
        if matrix:
            change = state["rows"] @ change @ state["columns"].T
        parameter.mul_(1.0 - group["lr"] * group["weight_decay"])
        parameter.sub_(change.view(parameter.shape), alpha=group["lr"])
        if matrix:
            state["row_covariance"].lerp_(gradient @ gradient.T, 1.0 - group["covariance"])
            state["column_covariance"].lerp_(gradient.T @ gradient, 1.0 - group["covariance"])
            if step % group["every"] == 0:
                _turn(state)


def _started(gradient: Tensor) -> dict[str, Tensor]:
    state = {
        "step": torch.zeros(()),
        "exp_avg": torch.zeros_like(gradient),
        "exp_avg_sq": torch.zeros_like(gradient),
    }
    if gradient.shape[1] == 1:
        return state
    for name, covariance in (("row", gradient @ gradient.T), ("column", gradient.T @ gradient)):
        state[f"{name}_covariance"] = covariance
        # In double precision: the covariance of one gradient has mostly zeros among its eigenvalues.
        state[f"{name}s"] = torch.linalg.eigh(covariance.double())[1].flip(1).float().contiguous()
    return state


def _turn(state: dict[str, Tensor]) -> None:
    """Take one step of orthogonal iteration towards the eigenvectors of today's covariances.

    The squares stay with the vectors they belong to, which keep the order of their eigenvalues.
    """
    for axis, name in ((0, "row"), (1, "column")):
        vectors = state[f"{name}s"]
        image = state[f"{name}_covariance"] @ vectors
        order = (vectors * image).sum(0).argsort(descending=True)
        state["exp_avg_sq"] = state["exp_avg_sq"].index_select(axis, order)
        state[f"{name}s"] = torch.linalg.qr(image[:, order])[0].contiguous()
