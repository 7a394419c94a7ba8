"""`long_conv` by one FFT, or by halves: lags or products within blocks, and FFTs from each half to the next.

One FFT spreads the rounding of every token over all of them, so that a large token changes those before it by a share
of itself. By halves an FFT reads the first half of a block and writes to the second alone, so no token can reach an
earlier one: log2(t / 128) FFTs of the whole length. On two CPU cores, float32, forward and backward, batch 8, one FFT
takes 16 ms of processor time where halves take 56 (1,024 tokens, 64 channels), and 104 where they take 299 (4,096).

Packed documents are taken by halves as well. The product of a whole sequence with its Toeplitz matrix cannot be masked
by document once it is a product of spectra. But seen from one half of a block to the other the mask falls apart into
two: a token reaches the other half if its document reaches the middle, and is reached if its document began before it.
So the first halves are blanked, convolved, and blanked again.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Complex, Float

from kernels import dispatch
from kernels.short_conv.xla import add_lags
from kernels.toeplitz import within_chunks

# Up to here adding up the lags is as fast as an FFT, on two CPU cores, and it is exact.
FEW_TAPS = 64
# Tokens of a block that is one product of matrices; 64 and 256 take 1.2 and 1.9 times as long.
BLOCK = 128


def long_conv(u, k, k_back, reset):
  """Takes one negacyclic convolution for both directions, or `causal` where taps are few or documents packed."""
  t = u.shape[1]
  most = max(k.shape[1], 0 if k_back is None else k_back.shape[1])
  if reset is not None or most <= FEW_TAPS:
    return causal(u, k, k_back, reset)
  n = even_size(t + most - 1)
  kernel = jnp.pad(k, ((0, 0), (0, n - k.shape[1])))
  if k_back is None:
    return _contained(u, lambda u: _each_its_part(u, kernel, 0, t))
  # lag -i stands i places before the end, with the sign that what comes around gets
  kernel = kernel.at[:, 0].add(k_back[:, 0]).at[:, n - k_back.shape[1] + 1 :].add(-k_back[:, :0:-1])
  return _each_its_part(u, kernel, 0, t)


def causal(u, k, k_back, reset):
  """Convolves by halves, each direction by itself: no token reaches those that its taps do not."""
  y = _causal(u, k, reset)
  if k_back is not None:
    # A document starts, seen from the end, one token before the next one starts.
    mirrored = None if reset is None else jnp.pad(reset[:, 1:], ((0, 0), (0, 1)))[:, ::-1]
    y = y + _causal(u[:, ::-1], k_back, mirrored)[:, ::-1]
  return y


def fast_size(least: int) -> int:
  """Returns the smallest length of at least `least` whose only prime factors are 2, 3 and 5."""
  sizes = [1]
  for prime in (2, 3, 5):
    sizes = [size * prime**i for size in sizes for i in range(least.bit_length() + 1) if size * prime**i < 2 * least]
  return min(size for size in sizes if size >= least)


def even_size(least: int) -> int:
  """Returns twice a fast size: halves of a sequence are the two parts of complex numbers."""
  return 2 * fast_size(-(-least // 2))


def _causal(u, k, reset):
  """Convolves within blocks, then from the first half to the second of blocks twice, four times … as long."""
  few = k.shape[1] <= FEW_TAPS
  if reset is None and not few:
    return _contained(u, lambda u: _by_halves(u, k))
  t = u.shape[1]
  near = k[:, :FEW_TAPS]
  within = reset if reset is None or few else reset | (jnp.arange(t) % FEW_TAPS == 0)
  padded = jnp.pad(u, ((0, 0), (near.shape[1] - 1, 0), (0, 0)))
  y = add_lags(padded, near.T[::-1], within, dispatch.prefer("by_token", "by_tap"))
  if few or reset is None:
    return y
  document = jnp.cumsum(reset, axis=1)
  # blank again in the gradient rather than store a blanked copy of u for every level
  across = jax.checkpoint(_across, static_argnums=3)
  half = FEW_TAPS
  while half < t:
    y = y + across(u, k, document, half)
    half *= 2
  return y


def _by_halves(u, k):
  """Does the same as `_causal` for one document a row and more taps than a few."""
  b, t, e = u.shape
  blocks = jnp.pad(u, ((0, 0), (0, -t % BLOCK), (0, 0))).reshape(b, -1, BLOCK, e)
  y, half = within_chunks(blocks, k).reshape(b, -1, e)[:, :t], BLOCK
  while half < t:
    y = y + _across(u, k, None, half)
    half *= 2
  return y


def _contained(
  u: Float[Array, "b t e"], convolve: Callable[[Float[Array, "b t e"]], Float[Array, "b t e"]]
) -> Float[Array, "b t e"]:
  """Convolves each channel up to its first inf or NaN, and sets the rest to NaN; spectra and products spread these."""
  time, finite = jnp.arange(u.shape[1])[:, None], jnp.isfinite(u)
  begin = jnp.min(jnp.where(finite, u.shape[1], time), axis=1, keepdims=True)
  return jnp.where(time < begin, convolve(jnp.where(finite, u, 0)), jnp.nan)


def _across(u, k, document, half):
  """Returns what the first half of each block of 2 `half` tokens adds to its second half."""
  b, t, e = u.shape
  blocks = -(-t // (2 * half))
  # a single block may end early
  reached = half if blocks > 1 else t - half
  length = half + reached
  extra = blocks * length - t
  pairs = jnp.pad(u, ((0, 0), (0, extra), (0, 0))).reshape(b * blocks, length, e)
  n = even_size(length)
  kernel = jnp.pad(k[:, :length], ((0, 0), (0, n - min(k.shape[1], length))))
  if document is None:
    second = _each_its_part(pairs[:, :half], kernel, half, reached)
  else:
    document = jnp.pad(document, ((0, 0), (0, extra)), mode="edge").reshape(b * blocks, length)
    crosses = (document == document[:, half - 1 : half])[..., None]
    second = _each_its_part(jnp.where(crosses, pairs, 0)[:, :half], kernel, half, reached)
    second = jnp.where(crosses[:, half:], second, 0)
  return jnp.pad(second, ((0, 0), (half, 0), (0, 0))).reshape(b, blocks * length, e)[:, :t]


def _each_its_part(u: Float[Array, "b t e"], kernel: Float[Array, "e n"], first: int, count: int):
  """Runs `negacyclic` on each device's part of batch and channels; XLA would have every device do a whole FFT."""
  run = lambda u, kernel: (negacyclic(u, kernel, first, count),)
  return dispatch.shard(run, ("b t e", "e n"), ("b t e",))(u, kernel)[0]


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def negacyclic(u: Float[Array, "b t e"], kernel: Float[Array, "e n"], first: int, count: int) -> Float[Array, "b s e"]:
  """Returns outputs first … first + count - 1 of the negacyclic convolution of u, with zeros up to n, with a kernel.

  What comes around the end of such a convolution comes with a minus: it is a product of polynomials modulo x^n + 1.
  With x^(n/2) = i the two halves of a sequence are the parts of complex numbers, and a complex FFT of n/2 does what a
  real one of n would. Where u fills one half, as it does if n is there to keep the end away from the beginning, there
  are no zeros to write and no halves of results to cut away.

  For the gradient the spectra are kept, twice the size of u: to take them again costs a fifth of forward and backward.
  """
  return _negacyclic_fwd(u, kernel, first, count)[0]


def _twist(n: int, dtype) -> tuple[Float[Array, "m"], Float[Array, "m"]]:
  """Real and imaginary parts of i^(j / m), j < m = n/2, which makes of x^m = i the x^m = 1 of an FFT."""
  angle = (jnp.pi / n) * jnp.arange(n // 2, dtype=dtype)
  # computed once, not again for every element that is multiplied
  return jax.lax.optimization_barrier((jnp.cos(angle), jnp.sin(angle)))


def _spectrum(x: Float[Array, "... t"], n: int) -> Complex[Array, "... m"]:
  cos, sin = _twist(n, x.dtype)
  x, upper = x[..., : n // 2], x[..., n // 2 :]
  pad = lambda x: jnp.pad(x, ((0, 0),) * (x.ndim - 1) + ((0, n // 2 - x.shape[-1]),))
  x = pad(x)
  if not upper.shape[-1]:
    return jnp.fft.fft(jax.lax.complex(x * cos, x * sin))
  upper = pad(upper)
  return jnp.fft.fft(jax.lax.complex(x * cos - upper * sin, x * sin + upper * cos))


def _inverse(spectrum: Complex[Array, "... m"], first: int, count: int) -> Float[Array, "... s"]:
  m = spectrum.shape[-1]
  x = jnp.fft.ifft(spectrum)
  cos, sin = _twist(2 * m, x.real.dtype)
  lower, upper = x.real * cos + x.imag * sin, x.imag * cos - x.real * sin
  if first + count <= m:
    return lower[..., first : first + count]
  if first >= m:
    return upper[..., first - m : first - m + count]
  return jnp.concatenate([lower, upper], axis=-1)[..., first : first + count]


def _negacyclic_fwd(u, kernel, first, count):
  spectrum, response = _spectrum(u.swapaxes(1, 2), kernel.shape[1]), _spectrum(kernel, kernel.shape[1])
  y = _inverse(spectrum * response, first, count).swapaxes(1, 2)
  return y, (spectrum, response, u[..., :0])  # of u only the length is wanted


def _negacyclic_bwd(first, count, residuals, dy):
  spectrum, response, u = residuals
  n = 2 * response.shape[-1]
  d = _spectrum(jnp.pad(dy.swapaxes(1, 2), ((0, 0), (0, 0), (first, 0))), n)
  d_u = _inverse(d * response.conj(), 0, u.shape[1]).swapaxes(1, 2)
  return d_u, _inverse(jnp.sum(d * spectrum.conj(), axis=0), 0, n)


negacyclic.defvjp(_negacyclic_fwd, _negacyclic_bwd)


def long_conv_nd(u: Float[Array, "b *t e"], k: Float[Array, "e *l"], origin: tuple[int, ...]) -> Float[Array, "b *t e"]:
  """Takes one circular convolution along all axes, each padded until nothing comes around."""
  letters = " ".join("xyzw"[: len(origin)])
  run = lambda u, k: (_zero_padded(u, k, origin),)
  return dispatch.shard(run, (f"b {letters} e", f"e {letters}"), (f"b {letters} e",))(u, k)[0]


def _zero_padded(u: Float[Array, "b *t e"], k: Float[Array, "e *l"], origin: tuple[int, ...]):
  u = jnp.moveaxis(u, -1, 1)
  sizes = tuple(fast_size(t + l - 1) for t, l in zip(u.shape[2:], k.shape[1:]))
  axes = tuple(range(-len(sizes), 0))
  spectrum = jnp.fft.rfftn(u, sizes, axes) * jnp.fft.rfftn(k, sizes, axes)
  y = jnp.fft.irfftn(spectrum, sizes, axes)
  # outputs for lag 0 stand where the tap of lag 0 does
  y = y[(..., *(slice(o, o + t) for o, t in zip(origin, u.shape[2:])))]
  return jnp.moveaxis(y, 1, -1)
