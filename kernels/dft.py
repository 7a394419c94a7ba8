"""Fourier transforms over tokens of rows that are not equally long."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Complex, Int

from kernels import inputs
from mistake import Mistake

MOST = 1 << 19


def dft(z: Complex[Array, "b t e"], lengths: inputs.Lengths = None) -> Complex[Array, "b t e"]:
  """Z_f = sum_{s<n} z_s exp(-2 pi i f s / n) for f < n, n being a row's length; 0 from there on.

  With f s = (f^2 + s^2 - (f - s)^2) / 2 the sum is a convolution with a chirp, whose transforms have a length that is
  known when a program is compiled, whatever n (Bluestein 1970).

  Raises:
    ValueError: rows have more than 2^19 places, and lengths.
  """
  if lengths is None:
    return jnp.fft.fft(z, axis=1)
  t = z.shape[1]
  if t > MOST:
    raise Mistake(f"dft: {t} places; with lengths, squares of places fit 32 bits up to {MOST}")
  valid = inputs.valid(lengths, t)
  n = jnp.maximum(lengths, 1)[:, None]
  time = jnp.arange(t)
  angle = jnp.pi * _square(time, 2 * n).astype(z.real.dtype) / n  # of exp(i pi s^2 / n)
  chirp = jax.lax.complex(jnp.cos(angle), jnp.sin(angle))[..., None]
  size = 1 << max(2 * t - 2, 1).bit_length()
  around = jnp.zeros((z.shape[0], size, 1), chirp.dtype)
  around = around.at[:, :t].set(chirp).at[:, size - t + 1 :].set(chirp[:, 1:][:, ::-1])
  u = inputs.blank(valid, z)[0] * chirp.conj()
  product = jnp.fft.fft(u, size, axis=1) * jnp.fft.fft(around, axis=1)
  return inputs.blank(valid, jnp.fft.ifft(product, axis=1)[:, :t] * chirp.conj())[0]


def _square(i: Int[Array, "t"], m: Int[Array, "b 1"]) -> Int[Array, "b t"]:
  """i^2 modulo m, with no product beyond 32 bits while i is up to MOST and m up to twice that."""
  i = i % m
  return (i * (i // 256) % m * 256 + i * (i % 256)) % m
