"""What weights should become so that inputs from quantized layers give the outputs of the full-precision model.

A layer sees x, made by the layers before it as they are once quantized, in the place of y, its input in the
full-precision model. Over all real V, |Y W - X V| is least at

    V = (X^T X)^-1 X^T Y W = W + H^-1 (G - H) W,    H = X^T X, G = X^T Y

which is then quantized in the place of W: asymmetric calibration (GPTAQ, Li et al. 2025, arXiv 2504.02692) in closed
form.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

    from hyocr_core.kit.solver import Factor


def full_precision_targets(
    columns: Tensor, hessian: Tensor, cross: Tensor, factor: Factor, strength: float = 1.0
) -> Tensor:
    """Return V, (K, N) fp32, of weights W = `columns` (K, N) fp32.

    hessian, cross: H and G, (K, K) fp32, of the same tokens; see `hyocr_core.kit.collect_hessians`. factor: of the
    damped Hessian, which holds V near W where inputs say little. strength: how much of the way from W to V to go; V
    follows the calibration tokens' own noise too, the more the fewer they are.
    """
    if not strength:
        return columns
    return columns + strength * factor.solve((cross - hessian) @ columns)
