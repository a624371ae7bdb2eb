"""The public toolbox for authors of methods: statistics, grids, solvers and checks. Importing it imports torch."""

from hyocr_core.kit.checks import check_weights, is_finite
from hyocr_core.kit.e4m3 import LARGEST as E4M3_MAX
from hyocr_core.kit.e4m3 import round_scaled_ as round_to_e4m3_
from hyocr_core.kit.grid import Grid, decode, fit_grid, join_columns, round_to_nearest
from hyocr_core.kit.hessian import add_outer, by_layer, collect_hessians, settle_hessians, summed
from hyocr_core.kit.inputs import observe_inputs, observe_weighted
from hyocr_core.kit.integer_codes import IntegerStorage, integer_layer, output_errors, pack_integers, unpack_integers
from hyocr_core.kit.output_error import checked_hessian, halved, measured, output_energy, relative_errors
from hyocr_core.kit.smoothing import fold
from hyocr_core.kit.solver import DAMPING_STEPS, Factor, Solution, factorize, quantize_columns, solve
from hyocr_core.kit.statistics import merge, values_of
from hyocr_core.kit.threads import exact_matmul, one_thread

__all__ = [
    "DAMPING_STEPS",
    "E4M3_MAX",
    "Factor",
    "Grid",
    "IntegerStorage",
    "Solution",
    "add_outer",
    "by_layer",
    "check_weights",
    "checked_hessian",
    "collect_hessians",
    "decode",
    "exact_matmul",
    "factorize",
    "fit_grid",
    "fold",
    "halved",
    "integer_layer",
    "is_finite",
    "join_columns",
    "measured",
    "merge",
    "observe_inputs",
    "observe_weighted",
    "one_thread",
    "output_energy",
    "output_errors",
    "pack_integers",
    "quantize_columns",
    "relative_errors",
    "round_to_e4m3_",
    "round_to_nearest",
    "settle_hessians",
    "solve",
    "summed",
    "unpack_integers",
    "values_of",
]
