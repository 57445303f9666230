"""The divergence of the probability flow: the trace of a Jacobian that is never formed, exact or estimated.

With J = ∂v̂/∂x of one sample and products eᵀJ by reverse mode, any number of them after one call of the network:

    exact        Σ_i (e_iᵀ J)_i over the d unit vectors
    hutchinson   εᵀ J ε,   E ε εᵀ = I                                        (Hutchinson 1990; Grathwohl et al. 2019)
    hutch++      tr QᵀAQ + (d - m) gᵀAg/|g|²,   A = Jᵀ, Q an orthonormal basis of A times m Gaussians, g a Gaussian less
                 its part in Q                                                         (Meyer et al. 2021, algorithm 1)

The factor (d - m)/|g|² fixes the length of g, whose direction is uniform: so hutch++ is exact on a multiple of the
identity, as it is on any matrix of rank at most m.

The integral of the trace is a sum Σ_k w_k tr J_k over the calls of a fixed-step run, and its terms need not share a
probe: a sample's probe ε times signs s_k drawn anew for each place of the grid are independent Rademacher probes, whose
errors average out. An adaptive run keeps ε: its error control needs a smooth integrand.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from scoresde.denoiser import AnyDenoiser, Denoiser, Plan
from scoresde.errors import BadInput, choose, positive
from scoresde.noise import SeededNoise
from scoresde.samplers.solver import cut
from scoresde.schedule import per_sample
from scoresde.sde import SDE

PROBE, SKETCH, DEQUANTISE, BOUND = (2**40 + k for k in range(4))  # steps of the noise, apart from those of any run
SIGNS = 2**41  # and on: those of each place
PLACES = 12  # in an interval: every method's stages are at thirds or halves
AT_ONCE = 2**17  # numbers in the vectors of one batched product
PROBES = ("rademacher", "gaussian")

Product = Callable[[Tensor], Tensor]  # vectors (c, n, *event) -> vectorsᵀ J, alike


@dataclass(frozen=True)
class Divergence:
    """How the trace is taken: ``kind``, the number of ``probes`` and their law, the ``seed``, products at once."""

    kind: str = "exact"
    probes: int = 1
    probe: str = "rademacher"
    seed: int = 0
    chunk: int | None = None

    def __post_init__(self) -> None:
        choose("divergence", self.kind, DIVERGENCES)
        choose("probe", self.probe, PROBES)
        positive("probes", self.probes)
        if self.chunk is not None:
            positive("chunk", self.chunk)

    @property
    def estimates(self) -> int:
        """Estimates of the trace per sample: one for each probe, or the trace itself."""
        return 1 if self.kind == "exact" else self.probes

    def products(self, dims: int) -> int:
        """Vector-Jacobian products for each call of the network."""
        return {"exact": dims, "hutchinson": self.probes, "hutch++": self.probes + 2 * min(self.probes, dims)}[
            self.kind
        ]

    def draw(self, indices: Sequence[int], like: Tensor) -> tuple[Tensor, Tensor] | None:
        """The probes and, of hutch++, the Gaussians of the sketch, (probes, n, *event), functions of seed and index."""
        if self.kind == "exact":
            return None
        noise, hutchpp = SeededNoise(self.seed, indices), self.kind == "hutch++"
        z = torch.stack([noise(PROBE, j, like) for j in range(self.probes)])
        if not hutchpp:
            z = _signs(z) if self.probe == "rademacher" else z
            return z, z
        sketch = min(self.probes, per_sample(like).shape[1])
        return z, torch.stack([noise(SKETCH, j, like) for j in range(sketch)])

    def flip(self, drawn: tuple[Tensor, Tensor], place: int) -> tuple[Tensor, Tensor]:
        """The vectors drawn with the signs of one place, a function of the seed, the same for all samples."""
        probes, sketch = drawn
        signs = _signs(SeededNoise(self.seed, [0])(SIGNS + place, 0, probes[0, :1]))
        flipped = probes * signs
        return flipped, flipped if sketch is probes else sketch * signs

    def rows(self, product: Product, vectors: Tensor) -> Tensor:
        """The products of all vectors, a chunk at a time."""
        size = self.chunk or max(1, AT_ONCE // vectors[0].numel())
        return torch.cat([product(part) for part in vectors.split(size)])

    def __call__(self, product: Product, drawn: tuple[Tensor, Tensor] | None, x: Tensor) -> Tensor:
        """Estimates of tr J, (n, estimates)."""
        if drawn is None:
            return _exact(self, product, x)
        return DIVERGENCES[self.kind](self, product, *drawn)


def _signs(z: Tensor) -> Tensor:
    return torch.where(z < 0, -1.0, 1.0).to(z.dtype)


def _exact(how: Divergence, product: Product, x: Tensor) -> Tensor:
    n, dims = per_sample(x).shape
    size, total = how.chunk or max(1, AT_ONCE // x.numel()), x.new_zeros(n, 1)
    unit = torch.eye(dims, dtype=x.dtype, device=x.device)
    for first in range(0, dims, size):
        vectors = unit[first : first + size].unsqueeze(1).expand(-1, n, -1)
        rows = product(vectors.reshape(-1, *x.shape)).reshape(vectors.shape)
        total = total + (rows * vectors).sum((0, 2)).unsqueeze(1)
    return total


def _hutchinson(how: Divergence, product: Product, probes: Tensor, _: Tensor) -> Tensor:
    return (how.rows(product, probes) * probes).reshape(*probes.shape[:2], -1).sum(2).T


def _hutchpp(how: Divergence, product: Product, probes: Tensor, sketch: Tensor) -> Tensor:
    def columns(vectors: Tensor) -> Tensor:  # (c, n, *event) as (n, d, c)
        return vectors.reshape(*vectors.shape[:2], -1).permute(1, 2, 0)

    def times(matrix: Tensor) -> Tensor:
        """A = Jᵀ times the columns of (n, d, c)."""
        return columns(how.rows(product, matrix.permute(2, 0, 1).reshape(-1, *probes.shape[1:])))

    Q = torch.linalg.qr(columns(how.rows(product, sketch))).Q
    inside = (Q * times(Q)).sum((1, 2)).unsqueeze(1)
    g = columns(probes)
    rest = g.shape[1] - Q.shape[2]
    if not rest:
        return inside.expand(-1, g.shape[2])
    g = g - Q @ (Q.mT @ g)
    g = g - Q @ (Q.mT @ g)  # twice is enough for the last digits
    return inside + rest * (g * times(g)).sum(1) / g.square().sum(1)


DIVERGENCES: dict[str, Callable[..., Tensor]] = {"exact": _exact, "hutchinson": _hutchinson, "hutch++": _hutchpp}


@dataclass(frozen=True, eq=False)
class Traced(AnyDenoiser):
    """A denoiser whose states carry the integral of the divergence along, for the solvers of the flow.

    A state is (n, d + k): the coordinates, then k estimates of ∫ tr J dφ times ``weight``, so chosen that in the rms of
    a row a nat per coordinate weighs as much as a unit of the coordinates. With ``knots``, the φ of a fixed-step run's
    grid, the probes have signs of their own at each place of it.
    """

    inner: AnyDenoiser
    event: tuple[int, ...]
    how: Divergence
    drawn: tuple[Tensor, Tensor] | None
    grad: bool = False
    knots: Sequence[float] = ()
    sde: SDE = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "sde", self.inner.sde)
        object.__setattr__(self, "rows_per_call", self.inner.rows_per_call)

    @property
    def dims(self) -> int:
        """Coordinates of a sample."""
        return int(torch.Size(self.event).numel())

    @property
    def integrals(self) -> int:
        """Columns at the end of a state that are integrals: their error is absolute, however large they have grown."""
        return self.how.estimates

    @property
    def weight(self) -> float:
        """What the integral is multiplied by in the state."""
        return (self.dims * self.how.estimates) ** -0.5

    def join(self, x: Tensor) -> Tensor:
        """The state of x with nothing integrated yet."""
        return torch.cat([per_sample(x), x.new_zeros(len(x), self.how.estimates)], 1)

    def split(self, state: Tensor) -> tuple[Tensor, Tensor]:
        """x and the estimates of the integral, in nats, of a state y."""
        return state[:, : self.dims].reshape(-1, *self.event), state[:, self.dims :] / self.weight

    def vectors(self, t: float) -> tuple[Tensor, Tensor] | None:
        """What the trace at t is estimated with."""
        if self.drawn is None or not len(self.knots):
            return self.drawn
        phi = float(self.sde.phi(torch.tensor(t, dtype=torch.float64)))
        return self.how.flip(self.drawn, round(PLACES * np.interp(phi, self.knots, range(len(self.knots)))))

    def predict(self, form: str, x: Tensor, t: float | Tensor, **cond: Any) -> Tensor:
        x, _ = self.split(x)
        with torch.enable_grad():
            x = x if self.grad and x.requires_grad else x.detach().requires_grad_()
            v = self.inner.predict(form, x, t, **cond)

            def product(vectors: Tensor) -> Tensor:
                single = len(vectors) == 1
                given = vectors[0] if single else vectors
                kept: dict[str, Any] = {"retain_graph": True, "create_graph": self.grad, "is_grads_batched": not single}
                (row,) = torch.autograd.grad(v, x, given, **kept)
                return row.unsqueeze(0) if single else row

            traces = self.how(product, self.vectors(float(t)), x)
        v, traces = (v, traces) if self.grad else (v.detach(), traces.detach())
        # The flow's slope in y is v̂/size, that of the integral tr ∂v̂/∂x itself.
        return torch.cat([per_sample(v), self.weight * self.sde.prior_std(float(t)) * traces], 1)

    def plan(self, form: str, times: Sequence[float], x: Tensor, **cond: Any) -> Plan:
        plan = self.inner.plan(form, times, self.split(x)[0], **cond)

        def no_call(i: int, x: Tensor) -> Tensor:
            raise NotImplementedError("the flow's solver calls predict")

        return Plan(plan.skip, plan.scale, no_call)


def check_derivative(denoiser: AnyDenoiser, x: Tensor, cond: dict[str, Any]) -> None:
    """Refuse a network whose output is cut off from its input: its divergence would be silently wrong."""
    inner: Any = denoiser
    while not isinstance(inner, Denoiser) and hasattr(inner, "inner"):
        inner = inner.inner
    if isinstance(inner, Denoiser):
        with torch.enable_grad():
            one, t = x[:1].detach().requires_grad_(), torch.tensor(inner.sde.t_max, dtype=x.dtype, device=x.device)
            if not inner.output(one, t, **cut(cond, slice(0, 1), len(x))).requires_grad:
                raise BadInput(
                    "the network's output has no derivative by its input, so the flow has no divergence: it runs under"
                    " torch.no_grad() or outside torch (a constant is 0 * x + c)"
                )
