"""Multistep samplers against the recursions and algorithms of their papers."""

from __future__ import annotations

import math
from functools import partial
from itertools import pairwise

import numpy as np
import pytest
import torch
from exact import CONTINUOUS, F64, SDES, start
from numpy.polynomial import Polynomial
from test_multistep import Build, agree, levels, output, ran

import scoresde
from scoresde.samplers.adams import deis, ipndm, lms, phi_ab, plms, pndm
from scoresde.samplers.dpm_solver import dpm2m, dpm3m, dpmpp_2m, dpmpp_2m_sde, dpmpp_3m, dpmpp_3m_sde
from scoresde.samplers.multistep import kernel_moments
from scoresde.samplers.predictor_corrector import sa_solver, unipc


@pytest.mark.parametrize("sde", SDES.values(), ids=SDES)
@pytest.mark.parametrize("lower_order_final", [False, True])
@pytest.mark.parametrize(
    "build, space, order", [(dpm2m, "eps", 2), (dpm3m, "eps", 3), (dpmpp_2m, "x0", 2), (dpmpp_3m, "x0", 3)]
)
def test_dpm_solver_equals_its_published_recursion(
    build: Build, space: str, order: int, lower_order_final: bool, sde: scoresde.SDE
) -> None:
    """Lu et al. 2022a, b: the multistep updates of their released code, φ-functions and all."""
    n = 9
    times = levels(sde, n)
    at, x, D = sde.knots(times), start(sde, (3, 2)), list[torch.Tensor]()
    for i in range(n):
        D.insert(0, output(x, times[i]))
        k = min(order, i + 1, n - i if lower_order_final else order)
        h = at.lam[i + 1] - at.lam[i]
        if space == "x0":
            keep, scale = at.sigma[i + 1] / at.sigma[i], at.alpha[i + 1]
            phi1 = math.expm1(-h)
            phi2 = phi1 / h + 1
            phi3 = phi2 / h - 0.5
            signs = -phi1, phi2, -phi3
        else:
            keep, scale = at.alpha[i + 1] / at.alpha[i], at.sigma[i + 1]
            phi1 = math.expm1(h)
            phi2 = phi1 / h - 1
            phi3 = phi2 / h - 0.5
            signs = -phi1, -phi2, -phi3
        x = keep * x + scale * signs[0] * D[0]
        if k == 2:
            r0 = (at.lam[i] - at.lam[i - 1]) / h
            x = x + 0.5 * scale * signs[0] * (D[0] - D[1]) / r0
        if k == 3:
            r0, r1 = (at.lam[i] - at.lam[i - 1]) / h, (at.lam[i - 1] - at.lam[i - 2]) / h
            D1_0, D1_1 = (D[0] - D[1]) / r0, (D[1] - D[2]) / r1
            D1 = D1_0 + r0 / (r0 + r1) * (D1_0 - D1_1)
            x = x + scale * (signs[1] * D1 + signs[2] * (D1_0 - D1_1) / (r0 + r1))
    assert agree(ran(build, sde, times, lower_order_final=lower_order_final), x)


@pytest.mark.parametrize("sde", SDES.values(), ids=SDES)
@pytest.mark.parametrize("eta", [0.0, 0.4, 1.0])
@pytest.mark.parametrize("solver", ["midpoint", "heun", "3m"])
def test_dpmpp_sde_equals_k_diffusions_recursion(solver: str, eta: float, sde: scoresde.SDE) -> None:
    """dpmpp_2m_sde and dpmpp_3m_sde of k-diffusion, which knows σ alone: x/α with σ/α, ending at σ = 0."""
    n = 8
    times = (*levels(sde, n - 1), 0.0)
    at, x, D, hs = sde.knots(times), start(sde, (3, 2)), list[torch.Tensor](), list[float]()
    draws = torch.randn(n, 3, 2, dtype=F64, generator=torch.Generator().manual_seed(1))
    sigmas, y = at.sigma / at.alpha, x / at.alpha[0]
    for i in range(n):
        D.insert(0, output(at.alpha[i] * y, times[i]))
        if sigmas[i + 1] == 0:
            y = D[0]
            continue
        h = math.log(sigmas[i] / sigmas[i + 1])
        h_eta = h * (eta + 1)
        y = sigmas[i + 1] / sigmas[i] * math.exp(-h * eta) * y - math.expm1(-h_eta) * D[0]
        phi2 = math.expm1(-h_eta) / h_eta + 1
        if len(hs) == 1 or (hs and solver != "3m"):
            slope = (D[0] - D[1]) / (hs[0] / h)
            y = y + (phi2 if solver != "midpoint" else -0.5 * math.expm1(-h_eta)) * slope
        elif hs:
            r0, r1 = hs[0] / h, hs[1] / h
            first, second = (D[0] - D[1]) / r0, (D[1] - D[2]) / r1
            slope = first + (first - second) * r0 / (r0 + r1)
            y = y + phi2 * slope - (phi2 / h_eta - 0.5) * (first - second) / (r0 + r1)
        y = y + draws[i] * sigmas[i + 1] * math.sqrt(-math.expm1(-2 * h * eta))
        hs.insert(0, h)
    build = dpmpp_3m_sde if solver == "3m" else partial(dpmpp_2m_sde, solver=solver)
    assert agree(ran(build, sde, times, draws, eta=eta), y)


@pytest.mark.parametrize("h", [1e-2, 1e-4])
def test_dpmpp_3m_sde_tends_to_the_identity(h: float) -> None:
    """Its weights vanish with h: (1 - e^{-z}) (1, ...) to the leading order in z = 2h."""
    sde = SDES["edm"]
    row = dpmpp_3m_sde(sde, tuple(math.exp(-j * h) for j in range(4))).rows[2]
    expected = 2 * h * np.array([1 + 1 / 2 + 1 / 2 * 1 / 2 + 1 / 6 * 1 / 2, -1 - 1 / 6, 1 / 4 + 1 / 12])
    assert np.allclose(row.b, expected, rtol=3 * h) and row.a == pytest.approx(math.exp(-2 * h))


@pytest.mark.parametrize("sde", SDES.values(), ids=SDES)
@pytest.mark.parametrize("how", [{}, {"corrector": False}, {"lower_order_final": False}], ids=["", "-c", "-l"])
@pytest.mark.parametrize("variant", ["bh1", "bh2"])
@pytest.mark.parametrize("space", ["x0", "eps"])
@pytest.mark.parametrize("order", [1, 2, 3])
def test_unipc_equals_the_papers_algorithms(
    order: int, space: str, variant: str, how: dict[str, bool], sde: scoresde.SDE
) -> None:
    """Zhao et al. 2023: predictor and corrector from R_p(h) a = b / B(h), on states kept apart."""
    n, x0 = 7, space == "x0"
    times = levels(sde, n)
    at, x = sde.knots(times), start(sde, (3, 2))
    D = [output(x, times[0])]
    for i in range(n):
        k = min(order, i + 1, n - i if how.get("lower_order_final", True) else order)
        h = at.lam[i + 1] - at.lam[i]
        u = -h if x0 else h
        B = u if variant == "bh1" else math.expm1(u)
        r = [(at.lam[i - j] - at.lam[i]) / h for j in range(1, k)] + [1.0]
        psi, b = math.expm1(u) / u - 1, list[float]()
        for m in range(1, k + 1):
            b.append(math.factorial(m) * psi / B)
            psi = psi / u - 1 / math.factorial(m + 1)
        R = np.array([[value**m for value in r] for m in range(k)])
        rho_p = [0.5] if k == 2 else np.linalg.solve(R[:-1, :-1], b[:-1]).tolist() if k > 1 else []
        rho_c = [0.5] if k == 1 else np.linalg.solve(R, b).tolist()
        scale = at.alpha[i + 1] if x0 else at.sigma[i + 1]
        keep = at.sigma[i + 1] / at.sigma[i] if x0 else at.alpha[i + 1] / at.alpha[i]
        base = keep * x - scale * math.expm1(u) * D[0]
        slopes = [(D[j] - D[0]) / r[j - 1] for j in range(1, k)]
        predicted = base - scale * B * sum((a * d for a, d in zip(rho_p, slopes, strict=True)), torch.zeros_like(x))
        x = predicted
        if i + 1 < n:
            D.insert(0, output(predicted, times[i + 1]))
            if how.get("corrector", True):
                slopes.append(D[0] - D[1])
                x = base - scale * B * sum((a * d for a, d in zip(rho_c, slopes, strict=True)), torch.zeros_like(x))
    assert agree(ran(unipc, sde, times, order=order, variant=variant, space=space, **how), x, 1e-11)


def adams_weights(z: float, nodes: list[float]) -> np.ndarray:
    """∫_0^1 z e^{-z(1-u)} L_j(u) du from the moments: Σ_j w_j u_j^m = J_m."""
    V = np.array([[node**m for node in nodes] for m in range(len(nodes))])
    return np.linalg.solve(V, kernel_moments(len(nodes) - 1, z))


@pytest.mark.parametrize("sde", SDES.values(), ids=SDES)
@pytest.mark.parametrize("orders", [(1, 1), (2, 2), (3, 4), (4, 2), (2, 0)])
@pytest.mark.parametrize("tau", [0.0, 0.6, 1.0])
def test_sa_solver_equals_its_algorithm(tau: float, orders: tuple[int, int], sde: scoresde.SDE) -> None:
    """Xue et al. 2023, algorithm 1: predict, evaluate, correct from the old state with the same noise."""
    (p, c), n = orders, 7
    times = levels(sde, n)
    at, x = sde.knots(times), start(sde, (3, 2))
    draws = torch.randn(n, 3, 2, dtype=F64, generator=torch.Generator().manual_seed(1))
    D = [output(x, times[0])]
    for i in range(n):
        h = at.lam[i + 1] - at.lam[i]
        z = (1 + tau**2) * h
        nodes = [float(at.lam[i - j] - at.lam[i]) / h for j in range(i + 1)]
        rest = at.sigma[i + 1] / at.sigma[i] * math.exp(-(tau**2) * h) * x
        rest = rest + at.sigma[i + 1] * math.sqrt(-math.expm1(-2 * tau**2 * h)) * draws[i]
        k = min(p, i + 1, n - i)
        x = rest + at.alpha[i + 1] * sum(w * d for w, d in zip(adams_weights(z, nodes[:k]), D, strict=False))
        if i + 1 < n:
            D.insert(0, output(x, times[i + 1]))
            if c:
                w = adams_weights(z, [1.0, *nodes[: min(c - 1, i + 1, n - i)]])
                x = rest + at.alpha[i + 1] * sum(a * d for a, d in zip(w, D, strict=False))
    out = ran(sa_solver, sde, times, draws, predictor_order=p, corrector_order=c, tau=tau)
    assert agree(out, x, 1e-10)


@pytest.mark.parametrize("name", CONTINUOUS)
@pytest.mark.parametrize("order", [1, 2, 3, 4])
@pytest.mark.parametrize("build", [lms, deis, phi_ab], ids=["lms", "deis", "phi_ab"])
def test_adams_in_any_variable_equals_its_integral(build: Build, order: int, name: str) -> None:
    """The update is ∫ P dρ (k-diffusion's lms, Zhang & Chen's tAB) or ∫ P dφ with P by polynomial interpolation."""
    n, sde = 6, SDES[name]
    times = levels(sde, n, bend=0.6)
    at, x, D = sde.knots(times), start(sde, (3, 2)), list[torch.Tensor]()
    rho, phi, r = at.sigma / at.alpha, np.arctan2(at.sigma, at.alpha), np.hypot(at.alpha, at.sigma)
    gauss, share = np.polynomial.legendre.leggauss(40)
    for i in range(n):
        clock, size = (phi, r) if build is phi_ab else (rho, at.alpha)
        D.insert(0, output(x, times[i]) / (r[i] if build is phi_ab else 1.0))
        k = min(order, i + 1)
        inside = clock[i] + (gauss + 1) / 2 * (clock[i + 1] - clock[i])
        v, points = clock, inside
        if build is deis:
            v, points = np.array(times), sde.t_of_rho(torch.from_numpy(inside)).numpy()
        y = x / size[i]
        for j in range(k):
            others = [v[i - m] for m in range(k) if m != j]
            basis = Polynomial.fromroots(others) if others else Polynomial([1.0])
            integral = (clock[i + 1] - clock[i]) / 2 * float(share @ basis(points)) / float(basis(v[i - j]))
            y = y + integral * D[j]
        x = size[i + 1] * y
    assert agree(ran(build, sde, times, order=order), x, 1e-10)


ADAMS = {1: [1.0], 2: [3 / 2, -1 / 2], 3: [23 / 12, -16 / 12, 5 / 12], 4: [55 / 24, -59 / 24, 37 / 24, -9 / 24]}


@pytest.mark.parametrize("sde", SDES.values(), ids=SDES)
@pytest.mark.parametrize("method", ["ipndm1", "ipndm2", "ipndm3", "ipndm4", "plms", "pndm"])
def test_pseudo_linear_multistep_equals_the_papers(method: str, sde: scoresde.SDE) -> None:
    """Liu et al. 2022 with DDIM as transfer; each start and stage from the state it is written for."""
    n, order = 8, int(method[-1]) if method[-1].isdigit() else 4
    times = levels(sde, n)

    def transfer(x: torch.Tensor, eps: torch.Tensor, s: float, t: float) -> torch.Tensor:
        at = sde.knots([s, t])
        return at.alpha[1] * (x - at.sigma[0] * eps) / at.alpha[0] + at.sigma[1] * eps

    x, D = start(sde, (3, 2)), list[torch.Tensor]()
    for i, (s, t) in enumerate(pairwise(times)):
        D.insert(0, output(x, s))
        k = min(order, i + 1)
        eps = sum(w * d for w, d in zip(ADAMS[k], D, strict=False))
        if method == "plms" and i == 0:
            eps = (D[0] + output(transfer(x, D[0], s, t), t)) / 2
        if method == "pndm" and i < 3:
            middle = (s + t) / 2
            second = output(transfer(x, D[0], s, middle), middle)
            third = output(transfer(x, second, s, middle), middle)
            fourth = output(transfer(x, third, s, t), t)
            eps = (D[0] + 2 * second + 2 * third + fourth) / 6
        x = transfer(x, eps, s, t)
    build = {"plms": plms, "pndm": pndm}.get(method, partial(ipndm, order=order))
    assert agree(ran(build, sde, times), x, 1e-11)
