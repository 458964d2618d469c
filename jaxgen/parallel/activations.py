"""Activations are sharded over the mesh as the batch is, however the parameters are sharded.

Without constraints the partitioner lets activations follow the parameters: with FSDP it would split channels rather
than examples, and send activations where it should gather weights. So every module's output is constrained to the
batch's sharding, from outside, and models know nothing of meshes. Channels and heads are left open and follow the
parameters: that is tensor parallelism.
"""

import contextvars
import functools
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jaxgen.parallel.mesh import BATCH_AXES, batch_parts, batch_sharding


def constrained[**P, R](mesh: Mesh, function: Callable[P, R]) -> Callable[P, R]:
    """Return the function with the outputs of all modules that it calls constrained to a batch's sharding.

    An array whose first axis does not divide over the batch's devices, such as one example under vmap, is left alone.
    """
    if mesh.size == 1:
        return function

    def intercept(method: Callable[..., Any], args: Any, kwargs: Any, context: Any) -> Any:
        del context
        return jax.tree.map(lambda x: _constrain(mesh, x), method(*args, **kwargs))

    @functools.wraps(function)  # whose name is in the compiler's messages
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        with nn.intercept_methods(intercept):
            return function(*args, **kwargs)

    return run


def over_groups(function: Callable[..., Any], groups: int, *arguments: Any) -> Any:
    """Map a function over the groups of rows that its arguments' first axis holds, as `jax.vmap` would.

    Each group is on devices of its own, where there are as many: nothing is sent between them.
    """
    token = _rows_are_mapped.set(True)
    try:
        return jax.vmap(function, spmd_axis_name=BATCH_AXES, axis_size=groups)(*arguments)
    finally:
        _rows_are_mapped.reset(token)


_rows_are_mapped = contextvars.ContextVar("rows_are_mapped", default=False)


def _constrain(mesh: Mesh, x: Any) -> Any:
    if not isinstance(x, jax.Array) or x.ndim == 0:
        return x
    spec = list(batch_sharding(mesh, x.shape).spec)
    if _rows_are_mapped.get():  # the groups' axis is hidden here: vmap shards it over the batch's axes
        spec[0] = PartitionSpec.UNCONSTRAINED
    elif x.shape[0] % batch_parts(mesh):
        return x
    open_axes = [PartitionSpec.UNCONSTRAINED] * (x.ndim - len(spec))
    return jax.lax.with_sharding_constraint(x, NamedSharding(mesh, PartitionSpec(*spec, *open_axes)))
