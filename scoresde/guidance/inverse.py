"""Inverse problems: the denoiser of data of which a measurement y = A(x_0) + n is known, for every sampler."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from math import isfinite
from typing import Any, NoReturn, Protocol

import torch
from torch import Tensor

from scoresde.denoiser import AnyDenoiser, Plan
from scoresde.errors import BadInput
from scoresde.guidance.methods import At, Method, Operator, Problem, find_method
from scoresde.guidance.operators import Linear, LinearMap
from scoresde.schedule import like
from scoresde.transforms import Wrapper

Strength = float | Callable[[Tensor], Tensor]


class Scaling(Protocol):
    """Data units to the network's, and back: `scoresde.data.Scaler`."""

    def encode(self, x: Tensor, /) -> Tensor:
        """To the network's units."""
        ...

    def decode(self, z: Tensor, /) -> Tensor:
        """To data units."""
        ...


@dataclass(frozen=True, eq=False)
class Measured(Wrapper):
    """What `measured` returns: a denoiser whose x̂_0 a method moves towards y; the other forms follow from that x̂_0."""

    operator: Operator
    y: Tensor
    name: str
    noise_std: float
    strength: Strength
    method: Method
    function: Callable[[Problem, At], Tensor]

    def __post_init__(self) -> None:
        super().__post_init__()
        strength = "a function of t" if callable(self.strength) else f"{self.strength:g}"
        object.__setattr__(self, "guidance", f"method {self.name!r} with strength = {strength}")

    def predict(self, form: str, x: Tensor, t: float | Tensor, **cond: Any) -> Tensor:
        skip, scale = self.from_x0(form, like(t, x))
        time = torch.as_tensor(t, dtype=x.dtype, device=x.device).reshape(-1)
        numbers = self.sde.alpha(time), self.sde.sigma(time), self._strength(time)
        x0, _ = self._moved(lambda x: (self.inner.predict("x0", x, t, **cond), None), x, numbers)
        return skip * x + scale * x0

    def plan(self, form: str, times: Sequence[float], x: Tensor, **cond: Any) -> Plan:
        inner = self.inner.plan("x0", times, x, **cond)
        t = torch.tensor(list(times), dtype=torch.float64)
        skip, scale = self.from_x0(form, t)
        self._refuse(x)
        with torch.no_grad():
            self._problem(torch.zeros_like(x))
        rows = [number.to(x).unbind() for number in (self.sde.alpha(t), self.sde.sigma(t), self._strength(t))]

        def of(i: int, x: Tensor) -> tuple[Tensor, Tensor | None]:
            out, v = inner.learned(i, x) if inner.learned else (inner.net(i, x), None)
            if x.requires_grad and not out.requires_grad:
                self._no_gradient()
            return torch.add(inner.skip[i] * x, out, alpha=inner.scale[i]), v

        def call(i: int, x: Tensor) -> tuple[Tensor, Any]:
            return self._moved(partial(of, i), x, (rows[0][i], rows[1][i], rows[2][i]))

        return Plan(skip.tolist(), scale.tolist(), lambda i, x: call(i, x)[0], call if inner.learned else None)

    def _strength(self, t: Tensor) -> Tensor:
        if not callable(self.strength):
            return torch.full_like(t, self.strength)
        strength = self.strength(t)
        if not bool((torch.isfinite(strength) & (strength >= 0)).all()):
            raise BadInput(f"strength: a function of t whose values are finite and >= 0, got {strength.min().item():g}")
        return strength

    def _problem(self, x: Tensor) -> Problem:
        """The problem with y for states like x, its shape compared with that of A(x)."""
        shape, given = self.operator(x).shape, self.y.shape
        if given not in (shape, shape[1:], (1, *shape[1:])):
            raise BadInput(
                f"y has shape {tuple(given)}, the operator makes {tuple(shape)} of states {tuple(x.shape)}: give y of"
                f" shape {tuple(shape[1:])}, one for all, or {tuple(shape)}, one per sample of the batch"
            )
        y = self.y.to(device=x.device, dtype=x.dtype if self.y.is_floating_point() else None)
        return Problem(self.operator, y.expand(shape), self.noise_std)

    def _refuse(self, x: Tensor) -> None:
        if self.method.backward and (torch.is_inference_mode_enabled() or x.is_inference()):
            raise BadInput(
                f"method {self.name!r} differentiates the network, which torch.inference_mode() forbids:"
                " use torch.no_grad(), or ddnm or diffpir"
            )

    def _no_gradient(self) -> NoReturn:
        raise BadInput(
            f"method {self.name!r} differentiates the network, but its output has no gradient with respect to its"
            " input: does it run under no_grad? Else use ddnm or diffpir"
        )

    def _moved(
        self,
        of: Callable[[Tensor], tuple[Tensor, Tensor | None]],
        x: Tensor,
        numbers: tuple[Tensor, Tensor, Tensor],
    ) -> tuple[Tensor, Any]:
        """The new x̂_0, and v where there is one; ``of`` makes both of x. No graph is left unless gradients are on."""
        self._refuse(x)
        keep = torch.is_grad_enabled()
        with torch.set_grad_enabled(keep or self.method.backward):
            if self.method.backward and not (keep and x.requires_grad):
                x = x.detach().requires_grad_()
            live, v = of(x)
            if self.method.backward and not live.requires_grad:
                self._no_gradient()
            x0 = live if keep else live.detach()

            def back(value: Tensor, cotangent: Tensor) -> Tensor:
                return torch.autograd.grad(value, x, cotangent, create_graph=keep, materialize_grads=True)[0]

            out = self.function(self._problem(x0), At(x0, *numbers, live, back))
        return (out, v) if keep else (out.detach(), None if v is None else v.detach())


def measured(
    denoiser: AnyDenoiser,
    y: Tensor,
    operator: Operator,
    method: str = "pigdm",
    noise_std: float = 0.0,
    strength: Strength = 1.0,
    *,
    scaler: Scaling | None = None,
    **options: Any,
) -> Measured:
    """The denoiser of x_0 given y = A(x_0) + n, n ~ N(0, noise_std²): every sampler then draws from p(x_0 | y).

    y            one measurement for all samples, in the shape of A's output without its batch, or one per sample,
                 (batch, ...); then all are one batch
    operator     A: any differentiable callable (batch, *event) -> (batch, ...) for "dps"; a `Linear` for the others
    method       a name of `METHODS`, whose docstrings say what each does: dps, pigdm, mcg, ddnm, diffpir, exact
    strength     multiplies what the method does (>= 0): a number, or a function of a tensor of times
    scaler       that of the model, where y, A and noise_std are in data units; None: all are in the network's
    options      of the method: variance (pigdm), lam (diffpir), covariance (exact)

    Methods with a backward pass (dps, pigdm, mcg) switch gradients on by themselves, also inside torch.no_grad(); no
    graph outlives a call, unless gradients are on around it.

    >>> import scoresde
    >>> from scoresde.guidance import Mask, measured
    >>> model = scoresde.load_model("datasaurus")
    >>> d = measured(model.denoiser, torch.tensor([70.0]), Mask(torch.tensor([1, 0]), (2,)), scaler=model.scaler)
    >>> x = model.scaler.decode(scoresde.sample(d, (5, 2), "ddim", steps=20).x)
    >>> x[:, 0].round()
    tensor([70., 70., 70., 70., 70.])
    """
    found, function = find_method(method, operator, options)
    if not isinstance(y, Tensor) or not bool(torch.isfinite(y).all()):
        raise BadInput("y: a tensor of finite numbers, the measurement")
    if isinstance(noise_std, bool) or not (isfinite(noise_std) and noise_std >= 0):
        raise BadInput(f"noise_std = {noise_std}: the standard deviation of the measurement's noise, finite and >= 0")
    if not callable(strength) and not (isfinite(strength) and strength >= 0):
        raise BadInput(f"strength = {strength}: a finite number >= 0, or a function of t")
    if isinstance(operator, Linear):  # its event shape is known: refuse another y now, else at the first call
        one = operator(torch.zeros(1, *operator.shape)).shape[1:]
        if y.shape[max(0, y.ndim - len(one)) :] != one or y.ndim > len(one) + 1:
            raise BadInput(f"y has shape {tuple(y.shape)}, the operator makes {tuple(one)}, or (batch, ...) of it")
    if scaler is not None:
        operator, y, noise_std = to_scaled(operator, y, noise_std, scaler)
    return Measured(denoiser, operator, y, method, float(noise_std), strength, found, function)


def to_scaled(operator: Operator, y: Tensor, noise_std: float, scaler: Scaling) -> tuple[Operator, Tensor, float]:
    """Operator, y and noise in the network's units z, x = c z + d, from those in data units.

    For a linear A, y - A d = A (c z) + n, divided by c where it is one number. Any other A becomes z -> A(decode(z)).

    >>> from scoresde.data import Scaler
    >>> from scoresde.guidance import Mask
    >>> to_scaled(Mask(torch.tensor([True, False]), (2,)), torch.tensor([255.0]), 12.75, Scaler.image())[1:]
    (tensor([1.]), 0.1)
    """
    if not isinstance(operator, Linear):
        return (lambda z: operator(scaler.decode(z))), y, noise_std
    zero = torch.zeros(1, *operator.shape, dtype=y.dtype if y.is_floating_point() else torch.float32, device=y.device)
    shift = scaler.decode(zero)
    c = scaler.decode(torch.ones_like(zero)) - shift
    first = float(c.flatten()[0])
    offset = operator(shift)
    moved = y - (offset if y.ndim == offset.ndim else offset[0])
    if bool((c == first).all()):
        return operator, moved / first, noise_std / first
    inner = operator
    return LinearMap(lambda z: inner(z * c.to(z)), inner.shape, lambda v: inner.adjoint(v) * c.to(v)), moved, noise_std
