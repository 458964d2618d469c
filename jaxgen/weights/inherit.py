"""A net that starts with what another has learned, where the two are alike."""

import jax
import jax.numpy as jnp

from jaxgen import tree
from jaxgen.errors import UserError
from jaxgen.state import Net
from jaxgen.typing import Tree


def inherit(net: Net, source: Net) -> Net:
    """Return the net with copies of those arrays of `source` that have the path and shape of its own.

    Parameters and statistics are inherited and lie where the net's own did; EMAs start anew from the parameters, and
    the optimizer's state stays. Raises UserError where no parameter is alike.
    """
    known = dict(tree.leaves({"params": source.params, **source.stats}))

    def take(path: str, leaf: jax.Array) -> jax.Array:
        if path not in known or known[path].shape != leaf.shape:
            return leaf
        # A copy: the step that trains this net donates its arrays.
        return jax.device_put(jnp.array(known[path], leaf.dtype), leaf.sharding)

    own: Tree = {"params": net.params, **net.stats}
    taken = tree.map_with_path(take, own)
    if not any(a is not b for a, b in zip(jax.tree.leaves(taken["params"]), jax.tree.leaves(net.params), strict=True)):
        raise UserError("inherit: the two nets have no parameter of the same path and shape; give them the same layers")
    params = taken.pop("params")
    ema = tuple(jax.tree.map(jnp.copy, params) for _ in net.ema)
    return Net(params=params, stats=taken, opt=net.opt, ema=ema)
