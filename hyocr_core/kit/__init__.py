"""The public toolbox for authors of methods: statistics, grids, solvers and checks. Importing it imports torch."""

from hyocr_core.kit.checks import check_weights, is_finite
from hyocr_core.kit.e4m3 import LARGEST as E4M3_MAX
from hyocr_core.kit.e4m3 import round_scaled_ as round_to_e4m3_
from hyocr_core.kit.grid import Grid, clipped_grid, decode, fit_grid, join_columns, round_to_nearest
from hyocr_core.kit.hessian import (
    add_cross,
    add_moments,
    add_outer,
    by_layer,
    collect_hessians,
    no_moments,
    settle_hessians,
    summed,
)
from hyocr_core.kit.inputs import observe_inputs, observe_paired, observe_weighted
from hyocr_core.kit.integer_codes import IntegerStorage, integer_layer, output_errors, pack_integers, unpack_integers
from hyocr_core.kit.output_error import checked_hessian, halved, measured, output_energy, relative_errors
from hyocr_core.kit.refinement import descend, refine, refit_scales
from hyocr_core.kit.smoothing import fold
from hyocr_core.kit.solved_grid import fit_grid_by_solving
from hyocr_core.kit.solver import (
    DAMPING_STEPS,
    Factor,
    Solution,
    damped_factor,
    factorize,
    quantize_columns,
    solve,
    walk_columns,
)
from hyocr_core.kit.statistics import merge, total, values_of
from hyocr_core.kit.targets import full_precision_targets
from hyocr_core.kit.threads import exact_matmul, one_thread

__all__ = [
    "DAMPING_STEPS",
    "E4M3_MAX",
    "Factor",
    "Grid",
    "IntegerStorage",
    "Solution",
    "add_cross",
    "add_moments",
    "add_outer",
    "by_layer",
    "check_weights",
    "checked_hessian",
    "clipped_grid",
    "collect_hessians",
    "damped_factor",
    "decode",
    "descend",
    "exact_matmul",
    "factorize",
    "fit_grid",
    "fit_grid_by_solving",
    "fold",
    "full_precision_targets",
    "halved",
    "integer_layer",
    "is_finite",
    "join_columns",
    "measured",
    "merge",
    "no_moments",
    "observe_inputs",
    "observe_paired",
    "observe_weighted",
    "one_thread",
    "output_energy",
    "output_errors",
    "pack_integers",
    "quantize_columns",
    "refine",
    "refit_scales",
    "relative_errors",
    "round_to_e4m3_",
    "round_to_nearest",
    "settle_hessians",
    "solve",
    "summed",
    "total",
    "unpack_integers",
    "values_of",
    "walk_columns",
]
