"""SOAP: Adam in the eigenvectors of Shampoo's preconditioner (Vyas et al., ICLR 2025, https://arxiv.org/abs/2409.11321).

Residual denoising is badly conditioned: the network has to reproduce the noise with an error of 1 % before it can
remove it. The gradient is therefore rotated into the eigenvectors of its own covariance and scaled there as in Adam;
docs/evidence/training.md#the-run has the effect. Packages with SOAP treat a kernel's rows and columns as separate
dimensions, which does not work here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor


class SOAP(torch.optim.Optimizer):
    """The optimizer; a kernel (out, in, height, width) is a matrix (out, in * height * width), a bias is plain Adam.

    Parameters
    ----------
    betas : (float, float)
        Decay of the mean of the gradient and of its square.
    covariance : float
        Decay of the covariances whose eigenvectors are used.
    weight_decay : float
        Decoupled, as in AdamW.
    every : int
        Steps between two updates of the eigenvectors, each by one step of orthogonal iteration.

    Notes
    -----
    The first step only initialises the covariances.

    A covariance of few gradients does not determine the eigenvectors of the directions without gradient. Rounding
    chooses their basis, so two processors follow different paths: a relative change of 1e-7 in the gradients of a
    (4, 3, 3, 3) kernel moves it by 2 lr in the next step. In an (8, 2, 2, 2) kernel it stays below 1e-5.
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
        self._stacks: dict[int, list[_Stack]] = {}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Restore a state from a checkpoint or a copy."""
        super().__setstate__(state)
        self._stacks = {}

    @torch.no_grad()
    def step(self, _closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Take one step. Every parameter must have a gradient."""
        for number, group in enumerate(self.param_groups):
            if number not in self._stacks:
                self._stacks[number] = [_Stack(alike, self.state) for alike in _by_shape(group["params"])]
            for stack in self._stacks[number]:
                stack.advance(group)


def _by_shape(parameters: Iterable[Tensor]) -> list[list[Tensor]]:
    found: dict[tuple[int, int], list[Tensor]] = {}
    for parameter in parameters:
        found.setdefault((len(parameter), parameter.numel() // len(parameter)), []).append(parameter)
    return list(found.values())


class _Stack:
    """Parameters that are matrices of one shape, and are updated together, because each call to a GPU has a latency.

    Parameters
    ----------
    states : mapping of Tensor to dict
        State of the optimizer. The state of each parameter becomes a view of this stack's state.
    """

    def __init__(self, parameters: list[Tensor], states: Mapping[Tensor, dict[str, Tensor]]) -> None:
        self._parameters = parameters
        self._states = states
        self._state: dict[str, Tensor] = {}
        if states[parameters[0]]:
            self._share({name: torch.stack([states[p][name] for p in parameters]) for name in states[parameters[0]]})

    def _share(self, state: dict[str, Tensor]) -> None:
        self._state = state
        for index, parameter in enumerate(self._parameters):
            self._states[parameter].update({name: value[index] for name, value in state.items()})

    def _gradient(self) -> Tensor:
        return torch.stack([p.grad.float().reshape(len(p), -1) for p in self._parameters])  # type: ignore[union-attr]

    def advance(self, group: Mapping[str, Any]) -> None:
        """Take one step."""
        gradient, state = self._gradient(), self._state
        if not state:
            self._share(_started(gradient))
            return
        state["step"] += 1
        step = float(state["step"][0])
        first, second = group["betas"]
        state["exp_avg"].lerp_(gradient, 1.0 - first)
        turned, mean = gradient, state["exp_avg"]
        matrix = "rows" in state
        if matrix:
            turned = state["rows"].mT @ gradient @ state["columns"]
            mean = state["rows"].mT @ mean @ state["columns"]
        state["exp_avg_sq"].mul_(second).addcmul_(turned, turned, value=1.0 - second)
        scale = (state["exp_avg_sq"] / (1.0 - second**step)).sqrt_().add_(1e-8)
        changes = mean / (1.0 - first**step) / scale
        if matrix:
            changes = state["rows"] @ changes @ state["columns"].mT
        for parameter, change in zip(self._parameters, changes, strict=True):
            parameter.mul_(1.0 - group["lr"] * group["weight_decay"])
            parameter.sub_(change.view(parameter.shape), alpha=group["lr"])
        if matrix:
            state["row_covariance"].lerp_(gradient @ gradient.mT, 1.0 - group["covariance"])
            state["column_covariance"].lerp_(gradient.mT @ gradient, 1.0 - group["covariance"])
            if step % group["every"] == 0:
                _turn(state)


def _started(gradient: Tensor) -> dict[str, Tensor]:
    state = {
        "step": torch.zeros(len(gradient)),
        "exp_avg": torch.zeros_like(gradient),
        "exp_avg_sq": torch.zeros_like(gradient),
    }
    if gradient.shape[-1] == 1:
        return state
    for name, covariance in (("row", gradient @ gradient.mT), ("column", gradient.mT @ gradient)):
        state[f"{name}_covariance"] = covariance
        # In double precision: the covariance of one gradient has mostly zeros among its eigenvalues.
        state[f"{name}s"] = torch.linalg.eigh(covariance.double())[1].flip(-1).float().contiguous()
    return state


def _turn(state: dict[str, Tensor]) -> None:
    """Take one step of orthogonal iteration towards the eigenvectors of the present covariances.

    The squares are reordered with their vectors, which are sorted by eigenvalue.
    """
    squares = state["exp_avg_sq"]
    for axis, name in ((1, "row"), (2, "column")):
        vectors = state[f"{name}s"]
        image = state[f"{name}_covariance"] @ vectors
        order = (vectors * image).sum(1).argsort(1, descending=True)
        along = order[:, :, None] if axis == 1 else order[:, None, :]
        squares.copy_(squares.gather(axis, along.expand_as(squares)))
        vectors.copy_(torch.linalg.qr(image.gather(2, order[:, None, :].expand_as(image)))[0])
