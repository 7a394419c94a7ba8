"""Tokens sorted by their expert, so that each expert multiplies its own rows and no others."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from kernels.experts import chunks


def ragged(x: Float[Array, "r d"], W: Float[Array, "e d f"], sizes: Int[Array, "e"]) -> Float[Array, "r f"]:
  """Multiplies by XLA's grouped product, which on a CPU multiplies every row by every matrix."""
  wide = jnp.promote_types(x.dtype, jnp.float32)
  return jax.lax.ragged_dot(x, W, sizes, preferred_element_type=wide).astype(x.dtype)


PRODUCTS: dict[str, Callable[..., Array]] = {"ragged": ragged, "chunks": chunks.product}


def experts(x, chosen, weights, W_in, W_out, W_gate, inside, *, product: str):
  """Returns the weighted sums; each product is of rows in the order of their experts.

  Args:
    product: a name in PRODUCTS: (rows, matrices, rows of each matrix) -> rows, where rows after the last group may have
      any value.
  """
  (b, t, d), k, multiply = x.shape, chosen.shape[-1], PRODUCTS[product]
  expert = chosen.reshape(-1)
  order = jnp.argsort(expert, stable=True)
  inverse = jnp.zeros_like(order).at[order].set(jnp.arange(len(order), dtype=order.dtype))
  sizes = jnp.zeros(len(W_in), jnp.int32).at[expert].add(1, mode="drop")
  grouped = (jnp.arange(len(order)) < jnp.sum(sizes))[:, None]
  rows = jnp.where(grouped, _spread(x.reshape(-1, d), order, inverse, k), 0)
  z = multiply(rows, W_in, sizes)
  z = inside(z, None if W_gate is None else multiply(rows, W_gate, sizes))
  z = jnp.where(grouped, z * weights.reshape(-1)[order][:, None], 0)
  y = jnp.where(grouped, multiply(z, W_out, sizes), 0)
  return _collect(y, order, inverse, k).reshape(b, t, d)


# Each is the other's transpose: written so, neither direction adds into scattered rows.
@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def _spread(x: Float[Array, "n d"], order: Int[Array, "r"], inverse: Int[Array, "r"], k: int) -> Float[Array, "r d"]:
  """Returns each token's vector once for each of its k choices, in the order of the experts."""
  return x[order // k]


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def _collect(y: Float[Array, "r d"], order: Int[Array, "r"], inverse: Int[Array, "r"], k: int) -> Float[Array, "n d"]:
  """Returns the sum of each token's k rows."""
  wide = jnp.promote_types(y.dtype, jnp.float32)
  by_token = y[inverse].reshape(-1, k, y.shape[-1])
  return jnp.sum(by_token, axis=1, dtype=wide).astype(y.dtype)


_spread.defvjp(
  lambda x, order, inverse, k: (_spread(x, order, inverse, k), (order, inverse)),
  lambda k, saved, y_bar: (_collect(y_bar, *saved, k), None, None),
)
_collect.defvjp(
  lambda y, order, inverse, k: (_collect(y, order, inverse, k), (order, inverse)),
  lambda k, saved, x_bar: (_spread(x_bar, *saved, k), None, None),
)
