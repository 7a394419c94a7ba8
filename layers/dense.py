"""A linear map of the last axis."""

import functools
import math

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from kernels.inputs import product
from layers.initializers import Initializer, uniform_fan_in
from layers.param import Adapted, matrix, param


class Dense(nn.Module):
  """y = x W + bias over the last axis, in the dtype of x; Flax's own Dense returns float32 for bfloat16 in.

  Attributes:
    features: size of the last axis of y; that of x is inferred.
    axes: logical names of W's two axes; the bias has the second.
  """

  features: int
  use_bias: bool = False
  kernel_init: Initializer = nn.initializers.lecun_normal()
  bias_init: Initializer = nn.initializers.zeros
  axes: tuple[str | None, ...] = ("embed", "inner")

  @nn.compact
  def __call__(self, x: Float[Array, "*b d"]) -> Float[Array, "*b e"]:
    """x W + bias."""
    kernel = matrix(self, "kernel", self.kernel_init, (x.shape[-1], self.features), self.axes)
    y = _project_adapted(x, kernel) if isinstance(kernel, Adapted) else project(x, kernel, x.dtype)
    if self.use_bias:
      y = y + param(self, "bias", self.bias_init, (self.features,), self.axes[1:]).astype(x.dtype)
    return y


def torch_dense(
  features: int,
  axes: tuple[str | None, str | None],
  *,
  fan_in: int | None = None,
  use_bias: bool = False,
  gain: float = 1,
) -> Dense:
  """Returns a map that starts as PyTorch's linear layers do, its matrix times `gain`; a bias needs to know `fan_in`."""
  kernel_init, bias_init = uniform_fan_in(fan_in, gain), uniform_fan_in(fan_in)
  return Dense(features, use_bias=use_bias, kernel_init=kernel_init, bias_init=bias_init, axes=axes)


def _project_adapted(x: Float[Array, "*b d"], kernel: Adapted) -> Float[Array, "*b e"]:
  """x (W + A B), as x W + (x A) B where that is fewer products, as for a single token."""
  W, A, B = kernel
  if math.prod(x.shape[:-1]) * sum(W.shape) >= W.size:
    return project(x, W + A @ B, x.dtype)
  return project(x, W, x.dtype) + project(project(x, A, x.dtype), B, x.dtype)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def project(x: Float[Array, "*b d"], W: Float[Array, "d e"], dtype: jnp.dtype) -> Float[Array, "*b e"]:
  """x W, with factors in the dtype of x and the result in `dtype`.

  The gradient of W is summed up in W's own dtype, as the product x^T y_bar or, where x is wider than y, as that of
  y_bar^T x: XLA on a CPU writes the left factor anew, transposed, and with it computes again what made x, as an MLP's
  activation. Without this the gradient of a gated MLP takes a fifth longer (JAX's own rule: half as long again).
  """
  return _product(x, W, dtype)


def _product(x, W, dtype):
  return product("...d,de->...e", x, W.astype(x.dtype), dtype)


def _project_fwd(x, W, dtype):
  # the product itself, as a policy of `jax.checkpoint` that keeps products does not look into `project`
  return _product(x, W, dtype), (x, W)


def _project_bwd(dtype, saved, y_bar):
  x, W = saved
  y_bar = y_bar.astype(x.dtype)
  if x.shape[-1] > y_bar.shape[-1]:
    # the barrier keeps XLA from turning the product round
    W_bar = jax.lax.optimization_barrier(product("...e,...d->ed", y_bar, x, W.dtype)).T
  else:
    W_bar = product("...d,...e->de", x, y_bar, W.dtype)
  return y_bar @ W.T.astype(x.dtype), W_bar


project.defvjp(_project_fwd, _project_bwd)
