"""A network, an SDE and what the network predicts: together a denoiser, E[x_0 | x_t] in any of its forms.

Every prediction of the literature is a fixed mix of the data and the noise, out = u x_0 + w ε, and the state is
x = α x_0 + σ ε. So any form follows from the network's own output by one 2x2 solve,

    a x_0 + b ε = [(a w - b u) x + (b α - a σ) out] / (α w - σ u),

whose determinant shows which pairs are well conditioned. No form goes through another.

| form    | u              | w          | determinant | source                       |
|---------|----------------|------------|-------------|------------------------------|
| eps     | 0              | 1          | α           | Ho et al. 2020               |
| x0      | 1              | 0          | -σ          | Ho et al. 2020               |
| v       | -σ             | α          | α² + σ²     | Salimans & Ho 2022, sec. 4   |
| score   | 0              | -1/σ       | -α/σ        | Song et al. 2021             |
| flow    | α'             | σ'         | α σ' - σ α' | Lipman et al. 2022           |
| edm     | ρ/(σ_d r)      | -σ_d/r     | -(α/σ_d) r  | Karras et al. 2022, table 1  |

with ρ = σ/α, r = sqrt(ρ² + σ_d²).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from scoresde.errors import BadInput, choose
from scoresde.labels import LABELS, TimeLabel, network_dtypes, time_label
from scoresde.schedule import like
from scoresde.sde import SDE

FORMS = ("eps", "x0", "v", "score", "flow", "edm")


def mix(form: str, sde: SDE, t: Tensor, sigma_data: float = 0.5) -> tuple[Tensor, Tensor]:
    """The weights (u, w) of out = u x_0 + w ε for a form of the table above, in the shape of ``t``."""
    one, zero = torch.ones_like(t), torch.zeros_like(t)
    if form == "eps":
        return zero, one
    if form == "x0":
        return one, zero
    if form == "v":
        return -sde.sigma(t), sde.alpha(t)
    if form == "score":
        return zero, -1 / sde.sigma(t)
    if form == "flow":
        dlog_alpha, dlog_sigma = sde.rates(t)
        return sde.alpha(t) * dlog_alpha, sde.sigma(t) * dlog_sigma
    choose("prediction", form, FORMS)
    rho = sde.rho(t)
    r = torch.hypot(rho, torch.full_like(rho, sigma_data))
    return rho / (sigma_data * r), -sigma_data / r


def _checked(out: Tensor, x: Tensor, learned: bool) -> Tensor:
    """A network's output in x's dtype, if it has x's shape (of a learned variance, twice the channels)."""
    if not isinstance(out, Tensor):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise BadInput(f"the network returned {type(out).__name__}, not a tensor: wrap it in a function that does")
    if out.shape != (_doubled(x) if learned else x.shape):
        shapes = f"the network returned shape {tuple(out.shape)} for a state of shape {tuple(x.shape)}"
        if learned:
            raise BadInput(f"{shapes}: with a learned variance it returns (batch, 2c, ...) for (batch, c, ...)")
        hint = ": if half of it is a learned variance, say learned_variance=True" if out.shape == _doubled(x) else ""
        raise BadInput(shapes + hint)
    return out if out.dtype == x.dtype else out.to(x.dtype)


def _doubled(x: Tensor) -> tuple[int, ...] | None:
    """The shape of x with twice the channels, of an event that has channels."""
    return (x.shape[0], 2 * x.shape[1], *x.shape[2:]) if x.ndim > 1 else None


def _halves(out: Tensor) -> tuple[Tensor, Tensor]:
    """The form and v, mostly in [0, 1], from the output of a network with a learned variance."""
    form, raw = out.chunk(2, dim=1)
    return form, 0.5 * (raw + 1)


class Plan(NamedTuple):
    """The network at a list of times, all schedule numbers computed: row i gives D = skip_i x + scale_i net_i(x).

    ``learned``, of a network with a learned variance, gives net_i(x) and v in [0, 1] (Nichol & Dhariwal 2021, eq. 15).
    """

    skip: list[float]
    scale: list[float]
    net: Callable[[int, Tensor], Tensor]
    learned: Callable[[int, Tensor], tuple[Tensor, Tensor]] | None = None

    def __call__(self, i: int, x: Tensor) -> Tensor:
        return torch.add(self.skip[i] * x, self.net(i, x), alpha=self.scale[i])


class AnyDenoiser:
    """What samplers take: an SDE, any form at any times, and a plan for a known list of times.

    A network with its SDE is a `Denoiser`; a wrapper writes ``sde``, ``predict`` and ``plan`` too, and has the rest.
    """

    sde: SDE
    rows_per_call: int = 1  # network rows per sample and call, at most: 2 for a guided pair
    varies: bool = False  # whether some calls make fewer
    guidance: str = ""  # what it adds to the model, for the error when that is too strong
    given: Mapping[str, Tensor] = MappingProxyType({})  # conditions it brings along, a row for each sample
    sigma_data: float = 0.5  # of the form "edm"

    def rows(self, t: Tensor) -> Tensor:
        """Network rows per sample of a call at each of the times t."""
        return torch.full(t.shape, self.rows_per_call)

    def predict(self, form: str, x: Tensor, t: float | Tensor, **cond: Any) -> Tensor:
        """The form of the table above at (x_t, t), t a scalar or one time per sample."""
        raise NotImplementedError

    def plan(self, form: str, times: Sequence[float], x: Tensor, **cond: Any) -> Plan:
        """The form at ``times`` for states like x, with every schedule number computed."""
        raise NotImplementedError

    def from_x0(self, form: str, t: Tensor) -> tuple[Tensor, Tensor]:
        """(skip, scale) with form = skip x + scale x̂_0, as ε̂ = (x - α x̂_0)/σ."""
        a, b = mix(choose("form", form, FORMS), self.sde, t, self.sigma_data)
        alpha, sigma = self.sde.alpha(t), self.sde.sigma(t)
        return b / sigma, a - b * alpha / sigma

    def x0(self, x: Float[Tensor, "batch *event"], t: float | Tensor, **cond: Any) -> Float[Tensor, "batch *event"]:
        """x̂_0 = E[x_0 | x_t] (Tweedie)."""
        return self.predict("x0", x, t, **cond)

    def eps(self, x: Float[Tensor, "batch *event"], t: float | Tensor, **cond: Any) -> Float[Tensor, "batch *event"]:
        """ε̂ = (x - α x̂_0)/σ."""
        return self.predict("eps", x, t, **cond)

    def v(self, x: Float[Tensor, "batch *event"], t: float | Tensor, **cond: Any) -> Float[Tensor, "batch *event"]:
        """v̂ = α ε̂ - σ x̂_0 (Salimans & Ho 2022)."""
        return self.predict("v", x, t, **cond)

    def score(self, x: Float[Tensor, "batch *event"], t: float | Tensor, **cond: Any) -> Float[Tensor, "batch *event"]:
        """∇ log p_t(x) = -ε̂/σ."""
        return self.predict("score", x, t, **cond)

    def flow(self, x: Float[Tensor, "batch *event"], t: float | Tensor, **cond: Any) -> Float[Tensor, "batch *event"]:
        """The probability flow's velocity dx/dt = α' x̂_0 + σ' ε̂."""
        return self.predict("flow", x, t, **cond)

    def posterior(
        self, x: Float[Tensor, "batch *event"], s: float, t: float, **cond: Any
    ) -> tuple[Float[Tensor, "batch *event"], Tensor]:
        """Mean and standard deviation of p(x_s | x_t), s < t: q(x_s | x_t, x̂_0) (Ho et al. 2020, eq. 6-7).

        A learned variance takes the place of q's: log var = v log β + (1-v) log β̃ per coordinate, where β̃ is q's and
        β = β̃ (σ_t/σ_s)² (Nichol & Dhariwal 2021, eq. 15). At σ_s = 0 the mean is x̂_0, without noise.

        >>> import torch, scoresde
        >>> mean, std = scoresde.Denoiser(lambda x, t: 0 * x, scoresde.EDM(), "x0").posterior(
        ...     torch.ones(1, 2), 1.0, 2.0
        ... )
        >>> mean, std
        (tensor([[0.2500, 0.2500]]), tensor(0.8660))
        """
        skip, scale, net, learned = self.plan("x0", [t], x, **cond)
        out, v = learned(0, x) if learned else (net(0, x), None)
        mean, std = self.sde.posterior(x, torch.add(skip[0] * x, out, alpha=scale[0]), s, t)
        log_s, log_t = self.sde.log_sigma(torch.tensor([s, t], dtype=torch.float64)).tolist()
        if v is not None and math.isfinite(log_s):
            std = std * (v * (log_t - log_s)).exp()
        return mean, std


def layers(denoiser: AnyDenoiser) -> Iterator[AnyDenoiser]:
    """A denoiser and those inside it, the outermost first."""
    layer: AnyDenoiser | None = denoiser
    while layer is not None:
        yield layer
        layer = getattr(layer, "inner", None)


@dataclass(frozen=True, eq=False)
class Denoiser(AnyDenoiser):
    """A network as a denoiser of an SDE.

    ``network(c_in x, label, **cond)`` returns the form named by ``prediction``, in the shape of x; ``time`` says what
    its label is: one of ``LABELS`` or a callable (sde, t) -> label. Conditioning passes through untouched.
    ``dtype`` is what the network computes in; by default that of its parameters, else the state's. The state, the
    coefficients and the result stay in the caller's dtype, and labels of a half network in float32.
    With ``learned_variance`` the network returns twice the channels of an event (c, ...): the form, then 2v - 1 of the
    variance v log β + (1-v) log β̃ of a reverse step (Nichol & Dhariwal 2021, eq. 15), for `posterior` and "ddpm".

    >>> import torch, scoresde
    >>> d = scoresde.Denoiser(lambda x, t: torch.zeros_like(x), scoresde.VPSDE())
    >>> d.eps(torch.ones(4, 2), 0.5).abs().max().item()
    0.0
    """

    network: Callable[..., Tensor]
    sde: SDE
    prediction: str = "eps"
    time: TimeLabel = "t"
    sigma_data: float = 0.5
    dtype: torch.dtype | None = None
    learned_variance: bool = False

    def __post_init__(self) -> None:
        choose("prediction", self.prediction, FORMS)
        if isinstance(self.time, str):
            choose("time label", self.time, LABELS)
        if isinstance(self.network, AnyDenoiser) or not callable(self.network):
            raise TypeError(
                f"network must be a callable (x, label, **cond) -> tensor, got {type(self.network).__name__}"
            )

    def c_in(self, t: Tensor) -> Tensor:
        """Scale of the network's input: 1/(α r) for EDM preconditioning (unit-variance input), else 1."""
        if self.prediction != "edm":
            return torch.ones_like(t)
        return (self.sde.alpha(t) * torch.hypot(self.sde.rho(t), torch.full_like(t, self.sigma_data))).reciprocal()

    def pair(self, form: str, t: Tensor) -> tuple[Tensor, Tensor]:
        """(skip, scale) with form = skip x + scale out, of the 2x2 solve at the head of this file."""
        if form == self.prediction:
            return torch.zeros_like(t), torch.ones_like(t)
        a, b = mix(form, self.sde, t, self.sigma_data)
        u, w = mix(self.prediction, self.sde, t, self.sigma_data)
        alpha, sigma = self.sde.alpha(t), self.sde.sigma(t)
        det = alpha * w - sigma * u
        return (a * w - b * u) / det, (b * alpha - a * sigma) / det

    def output(self, x: Tensor, t: Tensor, **cond: Any) -> Tensor:
        """The network's own form at (x_t, t), t one per sample or a scalar: what training compares with a target."""
        return self.outputs(x, t, **cond)[0]

    def outputs(self, x: Tensor, t: Tensor, **cond: Any) -> tuple[Tensor, Tensor | None]:
        """The network's own form and, of a learned variance, v."""
        t = like(t, x)
        own, wide = network_dtypes(self.network, x, self.dtype)
        label = time_label(self.time, self.sde, t, wide).reshape(-1).expand(x.shape[0])
        out = _checked(self.network((self.c_in(t) * x).to(own), label, **cond), x, self.learned_variance)
        return _halves(out) if self.learned_variance else (out, None)

    def target(self, x0: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """The training target u x_0 + w ε of the network's own form."""
        u, w = mix(self.prediction, self.sde, like(t, x0), self.sigma_data)
        return u * x0 + w * noise

    def predict(self, form: str, x: Tensor, t: float | Tensor, **cond: Any) -> Tensor:
        """The form at (x_t, t) from the network's output by the well-conditioned pair."""
        t = like(t, x)
        skip, scale = self.pair(choose("form", form, FORMS), t)
        return skip * x + scale * self.output(x, t, **cond)

    def plan(self, form: str, times: Sequence[float], x: Tensor, **cond: Any) -> Plan:
        """The form at ``times``: coefficients as Python floats, labels as one tensor on x's device, no schedule left.

        Raises BadInput before the first call where the pair does not exist (ε where α = 0, say).
        """
        t = torch.tensor(list(times), dtype=torch.float64)
        skip, scale, c_in = (c.tolist() for c in (*self.pair(choose("form", form, FORMS), t), self.c_in(t)))
        for time, numbers in zip(t.tolist(), zip(skip, scale, c_in, strict=True), strict=True):
            if not all(map(math.isfinite, numbers)):
                raise BadInput(
                    f"{self.prediction!r} prediction gives no {form} at t = {time:.6g} of {self.sde}"
                    " (no signal or no noise is left there): use 'v' or 'x0' prediction, or a grid that ends before it"
                )
        own, wide = network_dtypes(self.network, x, self.dtype)
        labels = time_label(self.time, self.sde, t, wide).to(x.device).unsqueeze(1).expand(-1, x.shape[0]).unbind()
        network, scaled, same = self.network, self.prediction == "edm", own == x.dtype

        def net(i: int, x: Tensor) -> Tensor:
            given = c_in[i] * x if scaled else x
            return _checked(network(given if same else given.to(own), labels[i], **cond), x, self.learned_variance)

        if not self.learned_variance:
            return Plan(skip, scale, net)
        return Plan(skip, scale, lambda i, x: net(i, x).chunk(2, dim=1)[0], lambda i, x: _halves(net(i, x)))


def from_callable(
    network: Callable[..., Tensor], sde: SDE, prediction: str = "eps", time: TimeLabel = "t", **fields: Any
) -> Denoiser:
    """Any foreign network as a denoiser: say its SDE, what it predicts, and what it is told of time.

    ``network(x, label, **cond)`` may be a module, a function or a lambda that reorders arguments or drops channels.

    >>> import torch, scoresde
    >>> net = lambda x, step: torch.zeros_like(x)  # a DDPM network: labels 0..999
    >>> scoresde.from_callable(net, scoresde.VPSDE(), "eps", time="index").x0(torch.ones(1, 2), 1.0).shape
    torch.Size([1, 2])
    """
    return Denoiser(network, sde, prediction, time, **fields)
