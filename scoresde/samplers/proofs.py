"""Which tests prove what each sampler claims: its equation against the published one, its order, its law.

Tests as pytest names them, in the folder ``tests``. That they exist and speak of their sampler is a test itself.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from scoresde.samplers.registry import Sampler

_STEP = "test_runge_kutta.py::"
_MULTI = "test_multistep.py::"
_PUBLISHED = "test_multistep_published.py::"
_SDE = "test_sde_steps.py::"
_OWN = "test_adaptive.py::"

# The equation of each, and what is known of it alone.
EQUATIONS: dict[str, tuple[str, ...]] = {
    "ode": (f"{_OWN}test_every_method_of_torchdiffeq_meets_its_tolerance", f"{_STEP}test_tableaux_equal_torchdiffeq"),
    **dict.fromkeys(("rk4", "heun", "midpoint"), (f"{_STEP}test_tableaux_equal_torchdiffeq",)),
    "edm": (f"{_SDE}test_edm_equals_algorithm_2",),
    "dpm2s": (
        f"{_STEP}test_dpm_solver_2_equals_the_papers_recursions",
        f"{_STEP}test_dpm2s_is_k_diffusions_dpm2",
    ),
    "dpm++2s": (f"{_STEP}test_dpm_solver_2_equals_the_papers_recursions",),
    **dict.fromkeys(("dpm3s", "dpm++3s"), (f"{_STEP}test_dpm_solver_3_equals_the_papers_recursion",)),
    "ddim": ("test_tables.py::test_ddim_equals_the_papers_recursion",),
    **dict.fromkeys(
        ("eab2", "eab3", "eab4"),
        (f"{_MULTI}test_means_of_polynomials", f"{_MULTI}test_names_for_one_thing_are_one_thing"),
    ),
    **dict.fromkeys(
        ("dpm2m", "dpm3m", "dpm++3m"),
        (f"{_PUBLISHED}test_dpm_solver_equals_its_published_recursion",),
    ),
    "dpm++2m": ("test_tables.py::test_dpmpp_2m_equals_the_papers_recursion",),
    **dict.fromkeys(
        ("deis", "lms", "ipndm", "phi-ab"),
        (f"{_PUBLISHED}test_adams_in_any_variable_equals_its_integral",),
    ),
    **dict.fromkeys(("plms", "pndm"), (f"{_PUBLISHED}test_pseudo_linear_multistep_equals_the_papers",)),
    "unipc": (f"{_PUBLISHED}test_unipc_equals_the_papers_algorithms",),
    "sa-solver": (f"{_PUBLISHED}test_sa_solver_equals_its_algorithm", f"{_MULTI}test_weak_orders_on_gaussian_data"),
    "rk45": (f"{_OWN}test_rk45_is_dormand_and_princes", f"{_OWN}test_the_order_of_rk45"),
    "dpm-adaptive": (
        f"{_OWN}test_dpm_adaptive_takes_the_papers_steps",
        f"{_OWN}test_the_order_of_dpm_pairs",
    ),
    "sde-adaptive": (f"{_OWN}test_the_reverse_sde_has_the_right_law",),
    "ddpm": (
        "test_tables.py::test_ancestral_sampling_equals_ddpm",
        "test_stochastic.py::test_first_order_convergence_of_the_output_law",
    ),
    "em": ("test_stochastic.py::test_first_order_convergence_of_the_output_law",),
    "reverse-diffusion": (
        f"{_SDE}test_reverse_diffusion_equals_the_papers_rules",
        f"{_SDE}test_the_output_law_converges_to_the_data",
    ),
    "sheun": (
        f"{_STEP}test_stochastic_heun_is_the_mean_of_two_euler_maruyama_steps",
        f"{_STEP}test_the_law_of_stochastic_heun_converges_at_second_order",
    ),
    **dict.fromkeys(
        ("dpm++2m-sde", "dpm++3m-sde"),
        (f"{_PUBLISHED}test_dpmpp_sde_equals_k_diffusions_recursion", f"{_MULTI}test_weak_orders_on_gaussian_data"),
    ),
    **dict.fromkeys(
        ("dpm2a", "dpm++2sa"),
        (
            f"{_STEP}test_ancestral_steps_equal_k_diffusions",
            f"{_STEP}test_the_output_law_converges_at_second_order",
        ),
    ),
    "dpm++sde": (
        f"{_STEP}test_dpmpp_sde_equals_k_diffusions",
        f"{_STEP}test_the_output_law_converges_at_second_order",
    ),
    "cas": (f"{_SDE}test_cas_equals_algorithm_2", f"{_SDE}test_the_output_law_converges_to_the_data"),
    "restart": (f"{_SDE}test_restart_equals_algorithm_1", f"{_SDE}test_the_output_law_converges_to_the_data"),
    "travel": (f"{_SDE}test_travel_walks_as_repaint_does", f"{_SDE}test_the_output_law_converges_to_the_data"),
    "pc": (
        "test_tables.py::test_pc_takes_any_first_order_predictor_with_its_options",
        "test_stochastic.py::test_predictor_corrector_converges",
    ),
    "langevin": (
        "test_tables.py::test_langevin_row_has_its_stationary_variance",
        "test_stochastic.py::test_annealed_langevin_approaches_the_data",
    ),
}


def proofs(sampler: Sampler) -> list[str]:
    """The tests of a sampler's equation, then those that every sampler of its kind has to pass.

    >>> from scoresde.samplers import SAMPLERS
    >>> proofs(SAMPLERS["ddim"])[:2]  # doctest: +NORMALIZE_WHITESPACE
    ['test_tables.py::test_ddim_equals_the_papers_recursion',
     'test_orders.py::test_order_of_the_recurrence_from_exact_history']
    """
    found = [*EQUATIONS.get(sampler.name, ())]
    if sampler.build and not sampler.stochastic:
        found += ["test_orders.py::test_order_of_the_recurrence_from_exact_history"]
    if sampler.stochastic:
        found += ["test_distributions.py::test_samples_are_as_close_to_the_data_as_data_are"]
    if sampler.build:
        found += ["test_sample.py::test_any_number_of_steps_under_any_sde"]
    if sampler.build and sampler.encode:
        found += ["test_encode.py::test_encoding_and_decoding_return_the_data"]
    return [*found, "test_sample.py::test_a_sample_depends_on_its_seed_and_index_alone"]
