"""Moving averages of a network's weights: by half-life or power function, several at once, and new ones afterwards."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from scoresde.errors import BadInput, choose
from scoresde.train.shards import laid

Rate = Callable[[int], float]  # at step k (from 0) the average becomes d times itself and 1 - d times the weights


def decay(value: float) -> Rate:
    """d = min(value, (1 + k)/(10 + k)): the second keeps a young average from being noise."""
    if not 0 <= value < 1:
        raise BadInput(f"EMA 'decay:{value}': a decay is at least 0 and below 1")
    return lambda k: min(value, (1 + k) / (10 + k))


def half_life(steps: float) -> Rate:
    """Weights count half as much every so many steps: d = 2^(-1/steps), with the same warm-up."""
    if not steps > 0:
        raise BadInput(f"EMA 'half_life:{steps}': a half-life is a positive number of steps")
    return decay(0.5 ** (1 / steps))


def power(sigma_rel: float) -> Rate:
    """d = (1 - 1/(k + 1))^(γ + 1): the weights of step k count nearly as k^γ (Karras et al. 2024, eq. 3, appendix C.1).

    ``sigma_rel`` is the width of that profile relative to the length of the run, below 0.288; γ follows from it.
    """
    gamma = power_exponent(sigma_rel)
    return lambda k: (k / (k + 1)) ** (gamma + 1)


RATES: dict[str, Callable[[float], Rate]] = {"decay": decay, "half_life": half_life, "power": power}


def power_exponent(sigma_rel: float) -> float:
    """γ of a profile t^γ of relative width σ_rel = (γ + 1)^{1/2} / ((γ + 2) (γ + 3)^{1/2}) (the same, eq. 126).

    >>> round(power_exponent(0.10), 2), round(power_exponent(0.05), 2)
    (6.94, 16.97)
    """
    if not 0 < sigma_rel < 12**-0.5:
        raise BadInput(f"EMA 'power:{sigma_rel}': the relative width is above 0 and below 0.288, that of a plain mean")
    roots = np.roots([1, 7, 16 - sigma_rel**-2, 12 - sigma_rel**-2])
    return float(max(root.real for root in roots))


def find_rate(spec: float | str) -> tuple[str, Rate]:
    """The name "kind:number" and the rate of "kind:number", or of a number, which is a decay.

    >>> find_rate(0.999)[0], find_rate("power:0.1")[0], round(find_rate("half_life:1000")[1](10**6), 6)
    ('decay:0.999', 'power:0.1', 0.999307)
    """
    kind, _, number = str(spec).rpartition(":")
    kind = choose("EMA", kind or "decay", RATES)
    try:
        value = float(number)
    except ValueError:
        raise BadInput(f"EMA {spec!r}: {kind} takes a number, as in {kind}:{_EXAMPLES[kind]}") from None
    return f"{kind}:{value:g}", RATES[kind](value)


_EXAMPLES = {"decay": "0.999", "half_life": "1000", "power": "0.1"}


class EMA:
    """θ̄ ← d θ̄ + (1 - d) θ for one or several d(k). Parameters are averaged, buffers are copied.

    The first average is the one that is sampled from unless another is asked for.

    >>> import torch
    >>> net = torch.nn.Linear(2, 2)
    >>> ema = EMA(net, [0.999, "power:0.1"])
    >>> ema.update(net, step=0)
    >>> list(ema.averages), torch.equal(ema.weights["weight"], net.weight)
    (['decay:0.999', 'power:0.1'], True)
    """

    def __init__(self, network: nn.Module, specs: float | str | Sequence[float | str]) -> None:
        specs = [specs] if isinstance(specs, float | int | str) else list(specs)
        if not specs:
            raise BadInput("EMA: at least one average is needed")
        self.rates = dict(find_rate(spec) for spec in specs)
        if len(self.rates) < len(specs):
            raise BadInput(f"EMA {specs}: one of them is named twice")
        weights = network.state_dict()
        self.averages = {name: {key: v.detach().clone() for key, v in weights.items()} for name in self.rates}

    @property
    def weights(self) -> dict[str, Tensor]:
        """The first average."""
        return next(iter(self.averages.values()))

    @torch.no_grad()
    def update(self, network: nn.Module, step: int) -> None:
        """Take in the network's weights after step ``step`` (counted from 0)."""
        parameters, state = dict(network.named_parameters()), network.state_dict()
        averaged = [key for key in state if key in parameters]
        for name, rate in self.rates.items():
            mean = self.averages[name]
            for key in averaged:
                mean[key].lerp_(state[key], 1 - rate(step))
            for key in state.keys() - parameters.keys():
                mean[key].copy_(state[key])

    def groups(self) -> dict[str, dict[str, Tensor]]:
        """The averages by the name of their group in a checkpoint: "ema", then the others by their own."""
        return {"ema" if i == 0 else name: mean for i, (name, mean) in enumerate(self.averages.items())}

    def load(self, groups: Mapping[str, Mapping[str, Tensor]]) -> None:
        """Replace the averages by saved ones."""
        for name, mean in self.groups().items():
            for key, tensor in groups[name].items():
                mean[key].copy_(laid(tensor, mean[key]))


def overlap(a: tuple[float, float], b: tuple[float, float]) -> float:
    """∫ p_a p_b of two power profiles p(τ) = (γ + 1) τ^γ / t^{γ+1} on [0, t], each given as (γ, t).

    (Karras et al. 2024, eq. 138.)

    >>> round(overlap((0.0, 2.0), (0.0, 4.0)), 6)  # plain means over [0, 2] and [0, 4]
    0.25
    """
    (ga, ta), (gb, tb) = a, b
    log = (ga + gb + 1) * math.log(min(ta, tb)) - (ga + 1) * math.log(ta) - (gb + 1) * math.log(tb)
    return (ga + 1) * (gb + 1) / (ga + gb + 1) * math.exp(log)


def mixture(snapshots: Sequence[tuple[float, float]], sigma_rel: float, step: float) -> np.ndarray:
    """Weights of snapshots (σ_rel, step) whose sum of profiles is nearest in L² to that of ``sigma_rel`` at ``step``.

    (Karras et al. 2024, appendix C.2; here under the condition that the weights sum to 1, so that what never moved
    during the run stays where it is, to the precision that snapshots have.)

    >>> mixture([(0.05, 100), (0.1, 100), (0.1, 200)], 0.1, 200).round(6).tolist()
    [0.0, 0.0, 1.0]
    """
    profiles = [(power_exponent(width), t) for width, t in snapshots]
    wanted = (power_exponent(sigma_rel), step)
    norms = np.array([overlap(a, a) for a in profiles]) ** -0.5
    gram = np.array([[overlap(a, b) for b in profiles] for a in profiles]) * np.outer(norms, norms)
    right = norms * np.array([overlap(a, wanted) for a in profiles])
    system = np.block([[gram, norms[:, None]], [norms[None], np.zeros((1, 1))]])  # the last row: their sum
    return norms * np.linalg.lstsq(system, np.append(right, 1.0), rcond=1e-12)[0][:-1]
