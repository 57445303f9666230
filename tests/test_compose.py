"""Several observations of one thing: the product of their posteriors, exact where all is Gaussian."""

from __future__ import annotations

import pytest
import torch
from exact import F64, SDES
from test_posterior_laws import PRIOR, ROOT, ROUND

import scoresde
from scoresde import SAMPLERS, BadInput, Gaussian
from scoresde.grids import make_grid
from scoresde.guidance import Matrix, classifier_free, compose, gaussian_posterior
from scoresde.samplers.law import output_law

GENERATOR = torch.Generator().manual_seed(0)
LOOKS = [Matrix(torch.randn(2, 3, dtype=F64, generator=GENERATOR), (3,)) for _ in range(3)]
SEEN = [torch.randn(2, dtype=F64, generator=GENERATOR) for _ in range(3)]
GIVEN = [gaussian_posterior(PRIOR, look, y, 0.5) for look, y in zip(LOOKS, SEEN, strict=True)]
ALL = gaussian_posterior(PRIOR, Matrix(torch.cat([look.entries for look in LOOKS]), (3,)), torch.cat(SEEN), 0.5)
COVS = [PRIOR.cov, *(each.cov for each in GIVEN)]


def composed(name: str, covariances: list[torch.Tensor] | None = None, n: int = 3) -> scoresde.guidance.Composed:
    sde = SDES[name]
    return compose(PRIOR.denoiser(sde), [each.denoiser(sde) for each in GIVEN[:n]], covariances)


@pytest.mark.parametrize("name", SDES)
def test_with_covariances_the_product_is_exact_at_every_time(name: str) -> None:
    sde, x = SDES[name], torch.randn(4, 3, dtype=F64, generator=torch.Generator().manual_seed(1))
    t = torch.linspace(0.05, 1.0, 4, dtype=F64) * sde.t_max
    d, truth = composed(name, COVS), ALL.denoiser(sde)
    assert torch.allclose(d.x0(x, t), truth.x0(x, t), rtol=1e-6, atol=1e-6)
    assert torch.allclose(d.score(x, t), truth.score(x, t), rtol=1e-5, atol=1e-6)
    assert torch.allclose(d.plan("eps", [0.5 * sde.t_max], x)(0, x), d.eps(x, 0.5 * sde.t_max), rtol=1e-7)


def test_a_run_gives_the_posterior_of_all() -> None:
    table = SAMPLERS["unipc"].build(SDES["vp"], make_grid("phi", SDES["vp"], 100))
    mean, cov = output_law(table, composed("vp", COVS), ALL)
    assert torch.allclose(mean, ALL.mean, atol=1e-3) and torch.allclose(cov, ALL.cov, atol=1e-3)


def test_the_sum_of_scores_is_right_at_the_data_and_biased_above() -> None:
    """Its error vanishes with σ and grows with it; with one observation it is that posterior."""
    sde, x = SDES["vp"], torch.randn(4, 3, dtype=F64, generator=torch.Generator().manual_seed(1))
    d, truth = composed("vp"), ALL.denoiser(sde)
    errors = [float((d.x0(x, t) - truth.x0(x, t)).abs().max()) for t in (1e-3, 1e-2, 0.1, 0.3)]
    assert errors == sorted(errors) and errors[0] < 1e-2 < 0.1 < errors[-1]
    one = composed("vp", n=1)
    assert torch.allclose(one.x0(x, 0.4), GIVEN[0].denoiser(sde).x0(x, 0.4))
    assert torch.allclose(one.predict("v", x, 0.4), GIVEN[0].denoiser(sde).v(x, 0.4))


def test_the_sum_of_scores_is_the_published_one() -> None:
    sde, x = SDES["edm"], torch.randn(4, 3, dtype=F64, generator=torch.Generator().manual_seed(1))
    scores = [each.denoiser(sde).score(x, 2.0) for each in GIVEN]
    assert torch.allclose(composed("edm").score(x, 2.0), sum(scores) - 2 * PRIOR.denoiser(sde).score(x, 2.0))


def test_calls_are_counted_and_events_have_any_shape() -> None:
    sde = SDES["vp"]
    wide = Gaussian(torch.zeros(1, 2, 2), torch.eye(4))
    posts = [Gaussian(torch.full((1, 2, 2), m), 0.5 * torch.eye(4)).denoiser(sde) for m in (0.0, 1.0)]
    run = scoresde.sample(
        compose(wide.denoiser(sde), posts, [wide.cov, wide.cov / 2, wide.cov / 2]), (300, 1, 2, 2), "ddpm", 50
    )
    assert run.network_evals == 3 * run.nfe == 150
    assert torch.allclose(run.x.mean(0), torch.tensor(2 / 3), atol=0.15)


def test_parts_keep_their_intervals_and_their_own_weights_of_each_sample() -> None:
    """Composed with a prior like itself, one posterior is itself again, whatever guides it."""
    sde, classes = scoresde.EDM(), torch.tensor([0, 1, 0, 1])

    def network(x: torch.Tensor, t: torch.Tensor, y: torch.Tensor | None = None) -> torch.Tensor:
        return x / 2 if y is None else x / 2 + torch.where(y == 2, 0, y)[:, None]

    plain = scoresde.Denoiser(lambda x, t, y: network(x, t), sde, "x0")
    one = scoresde.Denoiser(network, sde, "x0")
    within = classifier_free(one, 3.0, null=2, interval=(0.5, 5.0))
    run = dict(shape=(4, 2), sampler="ddim", steps=10, cond={"y": classes}, dtype=F64)
    alone, both = scoresde.sample(within, **run), scoresde.sample(compose(plain, [within]), **run)
    assert torch.allclose(both.x, alone.x, rtol=1e-12)
    assert both.network_evals == alone.network_evals + 10 and 10 < alone.network_evals < 20
    each = classifier_free(one, torch.tensor([0.5, 1.0, 2.0, 3.0]), null=2)
    alone = scoresde.sample(each, **run)
    for parts in ([each], [each, plain]):
        both = scoresde.sample(compose(plain, parts), **run, batch_size=2)
        assert torch.allclose(both.x, alone.x, rtol=1e-12)
    with pytest.raises(BadInput, match="only one of them can"):
        compose(plain, [each, each])


@pytest.mark.parametrize(
    "posteriors, covariances, said",
    [
        ([], None, "at least one"),
        ([ROUND.denoiser(SDES["edm"])], None, "another SDE"),
        ([ROUND.denoiser(SDES["vp"])], [ROOT], "1 covariances for a prior and 1"),
        ([ROUND.denoiser(SDES["vp"])], [PRIOR.cov, -PRIOR.cov], "covariance 1 .* positive definite"),
        ([ROUND.denoiser(SDES["vp"])], [PRIOR.cov, torch.eye(2)], "covariance 1 of shape"),
        ([ROUND.denoiser(SDES["vp"])] * 2, [PRIOR.cov] + [3 * PRIOR.cov] * 2, "below the prior's"),
    ],
)
def test_bad_input(posteriors: list, covariances: list | None, said: str) -> None:
    with pytest.raises(BadInput, match=said):
        compose(PRIOR.denoiser(SDES["vp"]), posteriors, covariances)
