"""Positions of tokens: rotations of queries and keys, scores that fall with distance, vectors added to the input."""

import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from kernels import dispatch
from layers.rope_scaling import frequencies
from layers.rotation import phases
from layers.sizes import scaled
from mistake import Mistake

LAYOUTS = ("half", "interleaved")


def rope(
  x: Float[Array, "b t h k"],
  positions: Int[Array, "b t"],
  *,
  theta: float = 1e4,
  layout: str = "half",
  share: float = 1.0,
  scaling: Mapping[str, Any] | None = None,
  amplitude: float = 1.0,
) -> Float[Array, "b t h k"]:
  """Turns pair i of each head by positions * theta^(-2i/k), so that q . k depends on the difference of positions.

  Su et al. 2021, arXiv:2104.09864, sec. 3.2.2. Angles are within 1e-6 rad at every position an int32 holds, see
  `layers.rotation.phases`; the result has the dtype of x.

  Args:
    theta: the longest wavelength is about 2 pi theta.
    layout: pairs are (i, i + k/2) ("half": LLaMA in Hugging Face, GPT-NeoX) or (2i, 2i + 1) ("interleaved": the paper,
      GPT-J). A checkpoint fits one of them.
    share: share of a head's entries that turn, the first ones, as if they were a whole head; the others stay.
    scaling: a rule of `layers.rope_scaling` for longer contexts than those of training, and its arguments.
    amplitude: factor on the entries that turn.

  Raises:
    ValueError: the entries to turn are odd in number, or `layout` or the rule is unknown or has other arguments.
  """
  k = turned(x.shape[-1], share)
  if k % 2:
    raise Mistake(f"rope: {k} entries of heads of size {x.shape[-1]} cannot be turned in pairs; make them even")
  if layout not in LAYOUTS:
    raise Mistake(f"rope: no layout {layout!r}; choose from {list(LAYOUTS)}")
  dtype = jnp.promote_types(x.dtype, jnp.float32)
  angles = phases(positions, frequencies(k, theta, scaling), dtype)[:, :, None]
  cos, sin = _made_once(amplitude * jnp.cos(angles)), _made_once(amplitude * jnp.sin(angles))
  wide, rest = x[..., :k].astype(dtype), x[..., k:]
  if layout == "half":
    first, second = jnp.split(wide, 2, axis=-1)
  else:
    first, second = wide[..., 0::2], wide[..., 1::2]
  pairs = (first * cos - second * sin, first * sin + second * cos)
  y = jnp.concatenate(pairs, axis=-1) if layout == "half" else jnp.stack(pairs, axis=-1).reshape(wide.shape)
  return jnp.concatenate([y.astype(x.dtype), rest], axis=-1)


def _made_once(z: Float[Array, "b t 1 m"]) -> Float[Array, "b t 1 m"]:
  """Multiplies by 1 such that XLA on CPUs writes z down, and does not compute it anew for every head that reads it."""
  if dispatch.platform() != "cpu" or z.shape[1] == 1:
    return z
  # a matrix product is never moved into the loop that reads it; an optimization barrier is, in the end
  return jnp.matmul(z, jnp.eye(z.shape[-1], dtype=z.dtype), precision=jax.lax.Precision.HIGHEST)


def turned(k: int, share: float) -> int:
  """Returns how many of a head's k entries `rope` turns."""
  return scaled(share, k)


def xpos_decays(k: int, *, layout: str = "half", share: float = 1.0) -> tuple[float, ...]:
  """Returns, for each entry of a head, the logarithm of the factor that xPos puts on its products per position between.

  zeta_i^(1/512), zeta_i = (2i + 0.4 k) / (1.4 k) for pair i     Sun et al. 2022, arXiv:2212.10554, sec. 3 and alg. 1

  and 1 for entries that are not turned.
  """
  n = turned(k, share)
  zeta = (np.arange(0, n, 2) + 0.4 * n) / (1.4 * n)
  pairs = np.tile(zeta, 2) if layout == "half" else np.repeat(zeta, 2)
  return tuple(np.log(pairs) / 512) + (0.0,) * (k - n)


def alibi_slopes(heads: int) -> tuple[float, ...]:
  """Returns by how much each head's scores fall per position between: 2^(-8i/h), i = 1..h, for h a power of 2.

  Press, Smith & Lewis 2022, arXiv:2108.12409, sec. 3. Other h follow their code: the slopes of the power of 2
  below, then every second one of the power above.
  """
  below = 2 ** int(math.log2(heads))
  geometric = lambda h: [2.0 ** (-8 * i / h) for i in range(1, h + 1)]
  return tuple(geometric(below) + geometric(2 * below)[0::2][: heads - below])


def sinusoidal(positions: Int[Array, "*b"], width: int, *, theta: float = 1e4) -> Float[Array, "*b d"]:
  """Returns sin and cos, side by side, of positions * theta^(-2i/width)     Vaswani et al. 2017, 1706.03762, sec. 3.5.

  Raises:
    ValueError: `width` is odd.
  """
  if width % 2:
    raise Mistake(f"sinusoidal: width={width} is odd; positions are pairs of sine and cosine")
  angles = phases(positions, frequencies(width, theta), jnp.float32)
  return jnp.stack([jnp.sin(angles), jnp.cos(angles)], axis=-1).reshape(*positions.shape, width)
