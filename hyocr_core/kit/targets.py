"""What weights should become so that inputs from quantized layers give the outputs of the full-precision model.

A layer sees x, made by the layers before it as they are once quantized, in the place of y, its input in the
full-precision model. Over all real V, |Y W - X V| is least at

    V = (X^T X)^-1 X^T Y W = W + H^-1 D W,    H = X^T X, D = X^T (Y - X)

which is then quantized in the place of W: asymmetric calibration (GPTAQ, Li et al. 2025, arXiv 2504.02692) in closed
form.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import Tensor

    from hyocr_core.contract.types import Stats
    from hyocr_core.kit.solver import Factor


def full_precision_targets(columns: Tensor, stats: Stats, factor: Factor, strength: float = 1.0) -> Tensor:
    """Return V, (K, N) fp32, of weights W = `columns` (K, N) fp32; `columns` itself where `stats` have no drift.

    stats: "drift" D (K, K) or "output_drift" D W (K, N), fp32; see `hyocr_core.kit.collect_hessians`. factor: of the
    damped Hessian of the same tokens, which holds V near W where inputs say little. strength: how much of the way from
    W to V to go; V follows the calibration tokens' own noise too, the more the fewer they are.
    """
    if not strength:
        return columns
    if "output_drift" in stats:
        shift = factor.solve(stats["output_drift"].to(columns.device))
    elif "drift" in stats:
        drift = stats["drift"].to(columns.device)
        # Whichever way solves for fewer columns.
        wide = columns.shape[1] > len(columns)
        shift = factor.solve(drift) @ columns if wide else factor.solve(drift @ columns)
    else:
        return columns
    return torch.add(columns, shift, alpha=strength)
