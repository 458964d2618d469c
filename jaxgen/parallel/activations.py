"""What a net computes lies on the mesh as the batch does, whatever its parameters do.

Left to itself the partitioner lets activations follow the parameters: with FSDP it would split channels rather than
examples, and send activations around where it should gather weights. So every module's output is pinned to the
batch's layout, from outside, and models know nothing of meshes. What is left open, channels and heads, follows the
parameters: that is tensor parallelism.
"""

import functools
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jaxgen.parallel.mesh import batch_parts, batch_sharding


def pinned[**P, R](mesh: Mesh, function: Callable[P, R]) -> Callable[P, R]:
    """Return the function with the outputs of all modules that it calls laid over the mesh as a batch is.

    An array whose first axis does not divide over the batch's devices, such as one example under vmap, is left alone.
    """
    if mesh.size == 1:
        return function

    def intercept(method: Callable[..., Any], args: Any, kwargs: Any, context: Any) -> Any:
        del context
        return jax.tree.map(lambda x: _pin(mesh, x), method(*args, **kwargs))

    @functools.wraps(function)  # whose name the compiler's messages bear
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        with nn.intercept_methods(intercept):
            return function(*args, **kwargs)

    return run


def _pin(mesh: Mesh, x: Any) -> Any:
    if not isinstance(x, jax.Array) or x.ndim == 0 or x.shape[0] % batch_parts(mesh):
        return x
    spec = batch_sharding(mesh, x.shape).spec
    open_axes = [PartitionSpec.UNCONSTRAINED] * (x.ndim - len(spec))
    return jax.lax.with_sharding_constraint(x, NamedSharding(mesh, PartitionSpec(*spec, *open_axes)))
