"""`short_conv` as shifted adds: a pass over the input for every 16 taps.

Measured on two CPU cores, float32, forward: 0.05 ns per tap and element, where `lax.conv_general_dilated` takes 6 ns.
"""

import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from kernels.inputs import Reset

# Taps added up in one loop. XLA fuses the adds into whatever reads them; many of them spoil that loop (64 taps summed
# over all tokens: 44 ms instead of 4), so that wide kernels go group by group, with the sum in memory between them.
GROUP = 16


def short_conv(x, kernel, taps, bias, reset, lengths, *, gradient):
  """Prepends the carried taps, adds up the lags, and cuts the taps to carry out where each row ends."""
  t, v = x.shape[1], taps.shape[1]
  padded = jnp.concatenate([taps, x], axis=1)
  y = add_lags(padded, kernel, reset, gradient)
  y = y if bias is None else y + bias
  if lengths is None and reset is None:
    return y, padded[:, t:]
  end = jnp.full(x.shape[:1], t) if lengths is None else lengths
  slots = jnp.arange(v)
  taps = jnp.take_along_axis(padded, (end[:, None] + slots)[..., None], axis=1)
  if reset is not None:
    # The last token is slot v - 1 and sees `last` slots further back; all of them before the first token.
    last = jnp.take_along_axis(_reach(reset, v), jnp.maximum(end - 1, 0)[:, None], axis=1)
    last = jnp.where(end[:, None] > 0, last, v)
    taps = jnp.where((v - 1 - slots <= last)[..., None], taps, 0)
  return y, taps


def _reach(reset: Bool[Array, "b t"], v: int) -> Int[Array, "b t"]:
  """Counts, for each token, the tokens before it in its document, v carried ones included."""
  index = jnp.arange(reset.shape[1])
  return index - jax.lax.cummax(jnp.where(reset, index, -v), axis=1)


def _room(reset: Bool[Array, "b t"], v: int) -> Int[Array, "b s"]:
  """Counts, for each token, the tokens after it in its document, v carried ones included."""
  t = reset.shape[1]
  end = jax.lax.cummin(jnp.where(reset, jnp.arange(t), t), axis=1, reverse=True)
  end = jnp.pad(end, ((0, 0), (0, 1)), constant_values=t)
  index = jnp.arange(-v, t)
  return end[:, jnp.maximum(index + 1, 0)] - 1 - index


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def add_lags(
  padded: Float[Array, "b s e"], kernel: Float[Array, "w e"], reset: Reset, gradient: str
) -> Float[Array, "b t e"]:
  """y_t = sum_{lag < w} kernel_{w-1-lag} padded_{t+w-1-lag}, over the lags that stay in the document of token t.

  Args:
    gradient: how that of the kernel is added up: "by_token" or "by_tap".
  """
  w = kernel.shape[0]
  return _slide(padded, kernel, w - 1 - jnp.arange(w), None if reset is None else _reach(reset, w - 1))


def _slide(
  source: Float[Array, "b s e"], kernel: Float[Array, "w e"], lags: Int[Array, "w"], limit: Int[Array, "b t"] | None
) -> Float[Array, "b t e"]:
  """sum_i kernel_i source_{t+i}, over the i whose lag is at most `limit` at t."""
  w, t = kernel.shape[0], source.shape[1] - kernel.shape[0] + 1

  def add(total, source, kernel, lags):
    terms = [total]
    for i in range(kernel.shape[0]):
      x = jax.lax.slice_in_dim(source, i, i + t, axis=1)
      terms.append(kernel[i] * (x if limit is None else jnp.where((lags[i] <= limit)[..., None], x, 0)))
    return functools.reduce(jnp.add, terms)

  start = jnp.zeros((source.shape[0], t, source.shape[2]), source.dtype)
  if w <= GROUP:
    return add(start, source, kernel, lags)
  rest = w % GROUP

  def body(total, group):
    first, kernel, lags = group
    window = jax.lax.dynamic_slice_in_dim(source, first, t + GROUP - 1, axis=1)
    return add(total, window, kernel, lags), None

  groups = rest + jnp.arange(0, w - rest, GROUP), kernel[rest:].reshape(-1, GROUP, *kernel.shape[1:])
  return jax.lax.scan(body, add(start, source, kernel[:rest], lags[:rest]), (*groups, lags[rest:].reshape(-1, GROUP)))[
    0
  ]


def _add_lags_fwd(padded, kernel, reset, gradient):
  return add_lags(padded, kernel, reset, gradient), (padded, kernel, reset)


def _add_lags_bwd(gradient, residuals, dy):
  padded, kernel, reset = residuals
  w = kernel.shape[0]
  dy_padded = jnp.pad(dy, ((0, 0), (w - 1, w - 1), (0, 0)))
  d_padded = _slide(dy_padded, kernel[::-1], jnp.arange(w), None if reset is None else _room(reset, w - 1))
  return d_padded, GRADIENTS[gradient](padded, dy, None if reset is None else _reach(reset, w - 1), w), None


def _by_token(padded, dy, reach, w: int) -> Float[Array, "w e"]:
  """sum_{b, t} dy_t padded_{t+i} over the tokens t that see as far back as w - 1 - i, for a CPU.

  Token by token, all is in cache: a reduction over b and t writes the products to memory first and takes 3 to 10 times
  as long. Adding up the rows inside the loop is not vectorised.
  """
  lags = w - 1 - jnp.arange(w)

  def add(total, index):
    t, d, reach = index
    window = jax.lax.dynamic_slice_in_dim(padded, t, w, axis=1)
    d = d[:, None]
    return total + window * (d if reach is None else jnp.where((lags <= reach[:, None])[..., None], d, 0)), None

  by_time = None if reach is None else reach.swapaxes(0, 1)
  start = jnp.zeros((padded.shape[0], w, padded.shape[2]), padded.dtype)
  return jax.lax.scan(add, start, (jnp.arange(dy.shape[1]), dy.swapaxes(0, 1), by_time))[0].sum(0)


def _by_tap(padded, dy, reach, w: int) -> Float[Array, "w e"]:
  """Does the same with one reduction over all tokens for each tap, for accelerators."""

  def tap(index):
    i, lag = index
    window = jax.lax.dynamic_slice_in_dim(padded, i, dy.shape[1], axis=1)
    return jnp.sum(window * (dy if reach is None else jnp.where((lag <= reach)[..., None], dy, 0)), axis=(0, 1))

  return jax.lax.map(tap, (jnp.arange(w), w - 1 - jnp.arange(w)))


GRADIENTS = {"by_token": _by_token, "by_tap": _by_tap}
add_lags.defvjp(_add_lags_fwd, _add_lags_bwd)
