"""A weighted sum of a few of many perceptrons for each token: the experts of a mixture, whose router is elsewhere."""

import functools
from collections.abc import Callable

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from kernels import dispatch
from kernels.experts import by_expert, reference

IMPLS: dispatch.Impls = {
  **{name: (functools.partial(by_expert.experts, product=name), dispatch.always) for name in by_expert.PRODUCTS},
  "reference": (reference.experts, dispatch.always),
}


def experts(
  x: Float[Array, "b t d"],
  chosen: Int[Array, "b t k"],
  weights: Float[Array, "b t k"],
  W_in: Float[Array, "e d f"],
  W_out: Float[Array, "e f d"],
  W_gate: Float[Array, "e d f"] | None = None,
  *,
  activation: Callable[[Array], Array],
  limit: float | None = None,
  impl: str = "auto",
) -> Float[Array, "b t d"]:
  """y = Σ_k weights_k W_out (f(W_gate x) * W_in x), or W_out f(W_in x) without a gate, with the matrices of chosen_k.

  All implementations but the reference compute the chosen experts alone, however many tokens each has. y has the dtype
  of x, in which the products are; their sums are in at least float32. Differentiable in all floating arrays. Over the
  ambient mesh each device computes the experts that it holds, for the tokens that it holds, and the sums are added up.

  Args:
    chosen: the numbers of the experts; e, or any number that is not one of 0 .. e - 1, is none, whose output is 0.
    activation: f, of each entry alone.
    limit: if given, W_gate x is at most this, and W_in x beside a gate at most this in size.
  """
  run = _one_token if impl == "auto" and _few(x, chosen, W_in) else dispatch.pick("experts", IMPLS, impl)

  inside = functools.partial(reference.gated, activation, limit)

  def local(x, chosen, weights, W_in, W_out, W_gate, numbers):
    local_numbers = chosen - numbers[0]
    local_numbers = jnp.where((local_numbers >= 0) & (local_numbers < len(numbers)), local_numbers, len(numbers))
    return (run(x, local_numbers, weights, W_in, W_out, W_gate, inside)[None],)

  matrices = ("e d f", "e f d", "e d f", "e")
  divided = dispatch.shard(local, ("b i d", "b i k", "b i k", *matrices), ("e b i d",))
  W_in, W_out = W_in.astype(x.dtype), W_out.astype(x.dtype)
  W_gate = None if W_gate is None else W_gate.astype(x.dtype)
  (parts,) = divided(x, chosen, weights.astype(x.dtype), W_in, W_out, W_gate, jnp.arange(len(W_in)))
  return jnp.sum(parts, axis=0)


def _few(x: Array, chosen: Array, W_in: Array) -> bool:
  """Returns whether these are single tokens that choose no more experts together than there are."""
  return x.shape[1] == 1 and chosen.size <= len(W_in)


def _one_token(x, chosen, weights, W_in, W_out, W_gate, inside):
  """Reads the matrices of the chosen experts, once for every choice."""
  none = chosen >= len(W_in)
  index = jnp.where(none, 0, chosen)
  return reference.of_each(
    x, jnp.where(none, 0, weights), *(None if W is None else W[index] for W in (W_in, W_out, W_gate)), inside
  )
