"""Floating-point operations of a function, counted in its jaxpr: matrix products and convolutions, trips included."""

import math
from collections.abc import Callable
from typing import Any

import jax
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn


def flops(function: Callable[..., Any], *arguments: Any) -> int:
    """Count 2 for each multiply-add of every dot_general and convolution; works on shapes as on arrays.

    XLA's own count takes a scan's body once, for any length; this one takes it as often as it runs. Of a cond's
    branches the largest counts; a while loop's body, whose number of trips is not known in advance, counts once.
    """
    return of_jaxpr(jax.make_jaxpr(function)(*arguments).jaxpr)


def of_jaxpr(jaxpr: Jaxpr) -> int:
    """Count as `flops` does."""
    return sum(_of_equation(equation) for equation in jaxpr.eqns)


def _of_equation(equation: JaxprEqn) -> int:
    name, params = equation.primitive.name, equation.params
    if name == "dot_general":
        (contracted, _), _ = params["dimension_numbers"]
        left = _shape(equation.invars[0])
        return 2 * math.prod(_shape(equation.outvars[0])) * math.prod(left[i] for i in contracted)
    if name == "conv_general_dilated":
        return 2 * _products(equation)
    if name == "cond":
        return max(of_jaxpr(branch.jaxpr) for branch in params["branches"])
    inner = [x for x in jax.tree.leaves(list(params.values()), is_leaf=_is_jaxpr) if _is_jaxpr(x)]
    trips = params["length"] if name == "scan" else 1
    return trips * sum(of_jaxpr(x.jaxpr if isinstance(x, ClosedJaxpr) else x) for x in inner)


def _shape(variable: Any) -> tuple[int, ...]:
    return variable.aval.shape


def _is_jaxpr(x: Any) -> bool:
    return isinstance(x, ClosedJaxpr | Jaxpr)


def _products(equation: JaxprEqn) -> int:
    """Multiplications of a convolution that touch neither padding nor the zeros of a dilated input."""
    numbers, params = equation.params["dimension_numbers"], equation.params
    image, kernel = map(_shape, equation.invars)
    out = _shape(equation.outvars[0])
    along = 1
    for i, axis in enumerate(numbers.lhs_spec[2:]):
        taps, places = kernel[numbers.rhs_spec[2 + i]], out[numbers.out_spec[2 + i]]
        stride, low = params["window_strides"][i], params["padding"][i][0]
        spread, dilation = params["lhs_dilation"][i], params["rhs_dilation"][i]
        last = (image[axis] - 1) * spread
        at = [place * stride - low + tap * dilation for place in range(places) for tap in range(taps)]
        along *= sum(0 <= x <= last and x % spread == 0 for x in at)
    # The kernel's input channels are already those of one group.
    batch, features = out[numbers.out_spec[0]], out[numbers.out_spec[1]]
    return along * batch * features * kernel[numbers.rhs_spec[1]]
