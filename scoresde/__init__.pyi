from .analytic import Empirical, Gaussian, GaussianMixture
from .analytic_start import AnalyticStart
from .brownian import BrownianNoise, brownian
from .classifier import NoisyClassifier
from .ddpm import DDPM
from .denoiser import Denoiser, from_callable
from .errors import BadInput, OutputError, SolverFailure, TrainingStopped
from .families import EDM, VESDE, VPSDE, CosineVPSDE, RectifiedFlow, SigmoidVPSDE, SubVPSDE
from .grids import GRIDS, make_grid, respace, respaced_times
from .likelihood import Likelihood, bits_per_dim, discrete_log_prob, interpolate, log_prob, variational_bound
from .model import Model, load_classifier, load_model
from .noise import SeededNoise
from .samplers import SAMPLERS, Result, Row, Table, encode, sample, trajectory
from .schedule import NoiseSchedule
from .sde import SDE
from .sdes import SDES
from .transforms import clip, dynamic_threshold

__version__: str

__all__ = [
    "DDPM",
    "EDM",
    "GRIDS",
    "SAMPLERS",
    "SDE",
    "SDES",
    "VESDE",
    "VPSDE",
    "AnalyticStart",
    "BadInput",
    "BrownianNoise",
    "CosineVPSDE",
    "Denoiser",
    "Empirical",
    "Gaussian",
    "GaussianMixture",
    "Likelihood",
    "Model",
    "NoiseSchedule",
    "NoisyClassifier",
    "OutputError",
    "RectifiedFlow",
    "Result",
    "Row",
    "SeededNoise",
    "SigmoidVPSDE",
    "SolverFailure",
    "SubVPSDE",
    "Table",
    "TrainingStopped",
    "__version__",
    "bits_per_dim",
    "brownian",
    "clip",
    "discrete_log_prob",
    "dynamic_threshold",
    "encode",
    "from_callable",
    "interpolate",
    "load_classifier",
    "load_model",
    "log_prob",
    "make_grid",
    "respace",
    "respaced_times",
    "sample",
    "trajectory",
    "variational_bound",
]
