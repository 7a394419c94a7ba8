"""Depthwise convolution with as many taps as there are tokens, causal or two-sided, along one axis or several."""

from jaxtyping import Array, Float

from kernels import dispatch, inputs, op, sequence_parallel
from kernels.long_conv import reference, xla
from mistake import Mistake

IMPLS = {
  "xla": (xla.long_conv, dispatch.always),
  "causal": (xla.causal, dispatch.always),
  "reference": (reference.long_conv, dispatch.always),
}
OVER = sequence_parallel.OverChannels(("b s e", "e l", "e m", "b s"), "b s e")
ND_IMPLS = {"xla": (xla.long_conv_nd, dispatch.always), "reference": (reference.long_conv_nd, dispatch.always)}


def long_conv(
  u: Float[Array, "b t e"],
  k: Float[Array, "e l"],
  *,
  k_back: Float[Array, "e m"] | None = None,
  reset: inputs.Reset = None,
  lengths: inputs.Lengths = None,
  impl: str = "auto",
) -> Float[Array, "b t e"]:
  """y_t = sum_{s<=t} k_{t-s} u_s + sum_{s>=t} k_back_{s-t} u_s, the second sum if `k_back` is given.

  Taps past the last are 0, taps past the last token are not used.

  "xla" is one FFT, which rounds: a token u_s changes the outputs before it, and all others, by at most 1e-6 |u_s| |k|
  in float32 and 1e-15 |u_s| |k| in float64, with |k| the root of the sum of the squares of the taps. "causal" is causal
  by construction, in about three times the time; `KERNEL_IMPL=causal` or `dispatch.force` chooses it for whole models.
  In both an inf or NaN does not reach the outputs before it.

  Args:
    k, k_back: taps by lag, from lag 0 on. Both multiply the current token: zero `k_back[:, 0]` to count it once.
    reset, lengths, impl: as in all ops, see `kernels`.
  """
  t, where = u.shape[1], op.rows(u.shape[1], reset, lengths)
  dtype = inputs.compute_dtype(u, k, k_back)
  cut = lambda k: None if k is None else k[:, :t]
  args = *op.cast(dtype, *where.fill(u), cut(k), cut(k_back)), where.reset
  return op.outputs("long_conv", IMPLS, impl, args, where, out=u, one_token=reference.long_conv, over=OVER)


def long_conv_nd(
  u: Float[Array, "b *t e"], k: Float[Array, "e *l"], *, origin: tuple[int, ...], impl: str = "auto"
) -> Float[Array, "b *t e"]:
  """y_p = sum_s k_{p - s + origin} u_s over all places s, where p, s and the indices of k have as many axes as wanted.

  What lies outside of u is 0.

  Args:
    origin: the index of lag 0 along each axis: 0 for a causal axis, l - 1 for one that looks ahead only.

  Raises:
    ValueError: u, k and `origin` differ in their number of axes, or `origin` lies outside of k.
  """
  axes = u.ndim - 2
  if k.ndim - 1 != axes or len(origin) != axes:
    raise Mistake(f"long_conv_nd: u has {axes} axes to convolve, k has {k.ndim - 1}, origin has {len(origin)}")
  if not all(0 <= o < l for o, l in zip(origin, k.shape[1:])):
    raise Mistake(f"long_conv_nd: origin={origin} is no index of taps of shape {k.shape[1:]}")
  dtype = inputs.compute_dtype(u, k)
  y = dispatch.pick("long_conv_nd", ND_IMPLS, impl, u, k, origin)(u.astype(dtype), k.astype(dtype), origin)
  return y.astype(u.dtype)
