"""At which times a network is trained: densities of t, drawn evenly over the batch.

    uniform       t uniform on [t_min, t_max]
    index         t = (n + 1) t_max/N, n one of the N steps of a DDPM chain (Ho et al. 2020)
    levels        one of ``n`` times, evenly from t_min to t_max: under VE the geometric σ of NCSN (Song & Ermon 2019)
    importance    uniform in λ, each loss weighed by the ratio of densities: the expectation is that of uniform t, and
                  the likelihood weighting's variance in t is gone (Song et al. 2021, maximum likelihood, eq. 12;
                  Kingma et al. 2021, section 5.1)
    lognormal     log ρ ~ N(``mean``, ``std``²) within the SDE's ends (EDM: Karras et al. 2022, table 1)
    logitnormal   logit of t ~ N(``mean``, ``std``²), t over its range (flow matching: Esser et al. 2024, eq. 19)
    loss_aware    one of ``bins`` with probability ∝ sqrt(E L²) of the last ``history`` losses there, uniform within;
                  losses are weighed so that the expectation is that of uniform t (Nichol & Dhariwal 2021, eq. 18)

All but the last are a map of u in (0, 1). Over a batch the u are "stratified", u + i/n mod 1 (Kingma et al. 2021,
appendix I.1: each uniform and together even, which lowers the variance of the loss), or "antithetic", u and 1 - u
(Nichol & Dhariwal's code is "independent", the third choice).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from scoresde.construct import construct
from scoresde.errors import BadInput, choose, positive
from scoresde.sde import SDE

SPREADS = ("stratified", "antithetic", "independent")


class Drawn(NamedTuple):
    """Times (n,) and what the loss at each is to be multiplied by, float32 on the generator's device."""

    t: Tensor
    weight: Tensor


def spread_out(n: int, generator: torch.Generator, how: str = "stratified") -> Float[Tensor, "n"]:
    """n numbers in [0, 1), each of them uniform.

    >>> u = spread_out(4, torch.Generator().manual_seed(0))
    >>> (4 * u.sort().values).floor().tolist()
    [0.0, 1.0, 2.0, 3.0]
    """
    choose("spread", how, SPREADS)
    if how == "stratified":
        u = torch.rand((), generator=generator, device=generator.device)
        return (u + torch.arange(n, device=generator.device) / n) % 1
    if how == "independent":
        return torch.rand(n, generator=generator, device=generator.device)
    u = torch.rand((n + 1) // 2, generator=generator, device=generator.device)
    return torch.cat([u, (1 - u).clamp(max=1 - 2**-24)])[:n]


@dataclass(eq=False)
class Times:
    """A density of training times: ``place`` maps u in [0, 1) to t and the weight of its loss.

    >>> import torch, scoresde
    >>> t, weight = make_times("uniform", scoresde.VPSDE()).draw(4, torch.Generator().manual_seed(0))
    >>> bool(((t >= 1e-3) & (t <= 1)).all()), weight.tolist()
    (True, [1.0, 1.0, 1.0, 1.0])
    """

    place: Callable[[Tensor], Drawn]
    spread: str = "stratified"

    def draw(self, n: int, generator: torch.Generator) -> Drawn:
        """n times and weights."""
        return self.place(spread_out(n, generator, self.spread))

    def update(self, t: Tensor, losses: Tensor) -> None:
        """Take note of the losses at these times; only `LossAware` does."""

    def state(self) -> dict[str, Tensor]:
        """What a checkpoint must keep."""
        return {}

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Take it back."""


# ---------------------------------------------------------------------------------------------------------- densities


def uniform(sde: SDE, *, spread: str = "stratified") -> Times:
    """t uniform on [t_min, t_max]."""
    return Times(lambda u: _plain(sde.t_min + (sde.t_max - sde.t_min) * u), spread)


def index(sde: SDE, *, N: int | None = None, spread: str = "stratified") -> Times:
    """A step of DDPM's chain; N is the SDE's own number of steps where it has one, else 1000 by default."""
    if sde.by_index and N not in (None, sde.N):
        raise BadInput(f"times 'index': N = {N}, the chain has {sde.N} steps")
    steps = positive("N", sde.label_steps if N is None else N)
    return Times(lambda u: _plain(((u * steps).floor() + 1.0) / steps * sde.t_max), spread)


def levels(sde: SDE, *, n: int = 10, spread: str = "stratified") -> Times:
    """One of n evenly spaced times, both ends among them."""
    if positive("n", n) < 2:
        raise BadInput(f"times 'levels': n = {n}: at least the two ends")
    return Times(lambda u: _plain(sde.t_min + (sde.t_max - sde.t_min) * (u * n).floor() / (n - 1)), spread)


def importance(sde: SDE, *, spread: str = "stratified") -> Times:
    """Uniform in λ, weighed by (λ(t_min) - λ(t_max))/(t_max - t_min) over -dλ/dt = g²/(2 σ²)."""
    high, low = sde.knots((sde.t_min, sde.t_max)).lam.tolist()
    if not math.isfinite(low):
        raise BadInput(f"times 'importance': λ has no end at t_max of {sde}: choose 'uniform'")

    def place(u: Tensor) -> Drawn:
        t = sde.t_of_lam((high + (low - high) * u).double()).clamp(sde.t_min, sde.t_max)
        rate = sde.g2(t) / (2 * (2 * sde.log_sigma(t)).exp())
        return Drawn(t.float(), ((high - low) / (sde.t_max - sde.t_min) / rate).float())

    return Times(place, spread)


def lognormal(sde: SDE, *, mean: float = -1.2, std: float = 1.2, spread: str = "stratified") -> Times:
    """EDM's density of noise levels ρ = σ/α, cut at the SDE's ends."""
    ends = sde.knots((sde.t_min, sde.t_max)).lam
    low, high = (_normal_cdf((-lam - mean) / _positive("std", std)) for lam in ends.tolist())
    if not low < high:
        raise BadInput(f"times 'lognormal': mean = {mean}, std = {std} leave no noise level between the ends of {sde}")

    def place(u: Tensor) -> Drawn:
        log_rho = mean + std * torch.special.ndtri(low + (high - low) * u.double().clamp(1e-12, 1 - 1e-12))
        return _plain(sde.t_of_lam(-log_rho).clamp(sde.t_min, sde.t_max).float())

    return Times(place, spread)


def logitnormal(sde: SDE, *, mean: float = 0.0, std: float = 1.0, spread: str = "stratified") -> Times:
    """Most of the times in the middle (std small), or all alike (std about 1.7)."""
    _positive("std", std)

    def place(u: Tensor) -> Drawn:
        share = (mean + std * torch.special.ndtri(u.double().clamp(1e-12, 1 - 1e-12))).sigmoid()
        return _plain((sde.t_min + (sde.t_max - sde.t_min) * share).float())

    return Times(place, spread)


class LossAware(Times):
    """Times where the loss is large are drawn more often, and weigh less (Nichol & Dhariwal 2021, eq. 18).

    Uniform until every bin has a full history; a share ``floor`` of the draws stays uniform.
    """

    def __init__(
        self, sde: SDE, *, bins: int = 100, history: int = 10, floor: float = 1e-3, spread: str = "stratified"
    ) -> None:
        if not 0 < floor <= 1:
            raise BadInput(f"times 'loss_aware': floor = {floor!r} must be in (0, 1]")
        self.sde, self.floor, self.spread = sde, floor, choose("spread", spread, SPREADS)
        self.chain = sde.N  # a chain has times of its own
        self.bins = int(self.chain or positive("bins", bins))
        self.history = torch.zeros(self.bins, positive("history", history), dtype=torch.float64)
        self.count = torch.zeros(self.bins, dtype=torch.int64)

    def probabilities(self) -> Tensor:
        """Of the bins."""
        if bool((self.count < self.history.shape[1]).any()):
            return torch.full((self.bins,), 1 / self.bins, dtype=torch.float64)
        p = self.history.square().mean(1).sqrt()
        return (1 - self.floor) * p / p.sum().clamp(min=1e-300) + self.floor / self.bins

    def draw(self, n: int, generator: torch.Generator) -> Drawn:
        p, u = self.probabilities(), spread_out(n, generator, self.spread).double().cpu()
        ends = p.cumsum(0)
        bin = torch.searchsorted(ends, u * ends[-1], right=True).clamp(max=self.bins - 1)
        inside = ((u * ends[-1] - (ends - p)[bin]) / p[bin]).clamp(0, 1)
        first, width = self.sde.t_min, (self.sde.t_max - self.sde.t_min) / self.bins
        t = (bin + 1) / self.bins * self.sde.t_max if self.chain else first + width * (bin + inside)
        weight = 1 / (self.bins * p[bin])
        return Drawn(t.float().to(generator.device), weight.float().to(generator.device))

    def update(self, t: Tensor, losses: Tensor) -> None:
        """``losses`` before the weights of `draw`; those that are not finite are left out."""
        t, losses = t.detach().double().cpu(), losses.detach().double().cpu()
        start = 0.5 if self.chain else 0.0
        share = (
            t / self.sde.t_max * self.bins - 1
            if self.chain
            else ((t - self.sde.t_min) / (self.sde.t_max - self.sde.t_min) * self.bins)
        )
        bins = (share + start).long().clamp(0, self.bins - 1)
        for k, loss in zip(bins.tolist(), losses.tolist(), strict=True):
            if math.isfinite(loss):
                self.history[k, int(self.count[k]) % self.history.shape[1]] = loss
                self.count[k] += 1

    def state(self) -> dict[str, Tensor]:
        return {"history": self.history, "count": self.count}

    def load(self, state: Mapping[str, Tensor]) -> None:
        self.history.copy_(state["history"])
        self.count.copy_(state["count"])


TIMES: dict[str, Callable[..., Times]] = {
    "uniform": uniform,
    "index": index,
    "levels": levels,
    "importance": importance,
    "lognormal": lognormal,
    "logitnormal": logitnormal,
    "loss_aware": LossAware,
}


def make_times(spec: str | Mapping[str, Any], sde: SDE) -> Times:
    """The density of a name, or of a mapping of its ``name`` and options, under an SDE.

    >>> import scoresde
    >>> make_times({"name": "lognormal", "mean": -1.0, "spread": "antithetic"}, scoresde.EDM()).spread
    'antithetic'
    """
    times = construct("times", TIMES, {"name": spec} if isinstance(spec, str) else spec, sde)
    choose("spread", times.spread, SPREADS)
    return times


def sample_times(n: int, sde: SDE, generator: torch.Generator, times: str | Mapping[str, Any] = "uniform") -> Drawn:
    """n training times and the weights of their losses, by name: for a loop of your own.

    >>> import torch, scoresde
    >>> sample_times(4, scoresde.VPSDE(), torch.Generator().manual_seed(0)).t.shape
    torch.Size([4])
    """
    return make_times(times, sde).draw(n, generator)


def _plain(t: Tensor) -> Drawn:
    return Drawn(t, torch.ones_like(t))


def _normal_cdf(x: float) -> float:
    return 0.5 * math.erfc(-x / math.sqrt(2))


def _positive(name: str, value: float) -> float:
    if not 0 < value < math.inf:
        raise BadInput(f"{name} = {value!r} must be a positive number")
    return value
