"""`attention` by cuDNN's fused kernels, through JAX. Lowered for such a machine in the tests, but never run on one."""

import jax
import jax.numpy as jnp

from kernels import dispatch

MOST, MULTIPLE = 128, 8  # sizes of a head; newer devices take more
OLDEST = 8  # generation of device that has such kernels


def attention(q, k, v, *_, mask, window, scale, **__):
  """Scores are never in memory."""
  # the window of that function does not count the token itself
  back = None if window is None else (window - 1, 0)
  causal = mask == "causal"
  return jax.nn.dot_product_attention(
    q, k, v, scale=scale, is_causal=causal, local_window_size=back, implementation="cudnn"
  )


def why_not(q, k, v, *where, mask, window, scale, softcap, weights, slopes, decays) -> str | None:
  """Returns why cuDNN, or JAX's interface to it, cannot run these arguments; masks stored in memory are not tried."""
  size, dtypes = q.shape[-1], {z.dtype for z in (q, k, v)}
  position, segment = where[0], where[2]
  reasons = {
    f"it needs an NVIDIA GPU of compute capability {OLDEST}.0": not has_kernels(),
    f"it needs one dtype, bfloat16 or float16, not {sorted(map(str, dtypes))}": (
      len(dtypes) > 1 or not dtypes <= {jnp.dtype(jnp.bfloat16), jnp.dtype(jnp.float16)}
    ),
    f"it needs heads of one size, a multiple of {MULTIPLE} up to {MOST}, not {size} and {v.shape[-1]}": (
      size != v.shape[-1] or size % MULTIPLE != 0 or size > MOST
    ),
    "it needs keys": k.shape[1] == 0,
    "it knows no places but the tokens' own indices": position is not None,
    "it knows no segments": segment is not None,
    "its window needs mask='causal'": window is not None and mask != "causal",
    "it has no soft cap": softcap is not None,
    f"it has no weights {weights!r}": weights != "softmax",
    "it has no slopes": slopes is not None,
    "it has no decays": decays is not None,
  }
  return next((reason for reason, applies in reasons.items() if applies), None)


def has_kernels() -> bool:
  """Returns whether the first device is a GPU of NVIDIA's that is new enough."""
  if dispatch.elsewhere("gpu"):
    return False
  # AMD's are called "gfx..."
  generation = getattr(jax.local_devices()[0], "compute_capability", "").split(".")[0]
  return generation.isdigit() and int(generation) >= OLDEST
