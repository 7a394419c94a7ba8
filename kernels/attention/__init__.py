"""Attention over a cache: causal or full, by document, in windows, with shared keys, a soft cap, biases by distance.

On CPUs it is a kernel in C++. The others are libraries': cuDNN's on GPUs, JAX's splash kernels on TPUs. What they do
not have runs as `xla`, blocks written in JAX. Keys and values are floats: a cache of eight bits is copied into floats
before it comes here, but for decoding, see `step`. In `cpp` and `xla` a key, value or query that is not finite reaches
the outputs of the queries that see it alone, and the gradients of no others. In cuDNN's and the splash kernels a key or
value that is not finite can also reach earlier queries of its block, whose weight of it is 0, as 0 times NaN is NaN. To
replace such tokens before would read all keys and values once more, in every call, for a step that training refuses
anyway: its loss is not finite.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from kernels import dispatch, op, sequence_parallel
from kernels.attention import cpp, cudnn, reference, xla
from kernels.attention.visible import places
from kernels.attention.weights import POINTWISE
from mistake import Mistake

IMPLS: dispatch.Impls = {
  "cpp": (cpp.attention, cpp.why_not),
  "cudnn": (cudnn.attention, cudnn.why_not),
  "splash": dispatch.imported("kernels.attention.splash", "attention"),
  "xla": (xla.attention, dispatch.always),
  "reference": (reference.attention, dispatch.always),
}
MASKS = ("causal", "full")
WEIGHTS = ("softmax", *POINTWISE)
# of all arguments; slopes belong to heads, which then stay together
AXES = "b t h k", "b s g k", "b s g p", "b t", "b s", "b t", "b s"
OVER = sequence_parallel.OverChannels(AXES, "b t h p")
OVER_TIME = sequence_parallel.OverChannels(("b t x k", "b s y k", "b s y p", *AXES[3:]), "b t x p")


def attention(
  q: Float[Array, "b t h k"],
  k: Float[Array, "b s g k"],
  v: Float[Array, "b s g p"],
  *,
  q_position: Int[Array, "b t"] | None = None,
  k_position: Int[Array, "b s"] | None = None,
  q_segment: Int[Array, "b t"] | None = None,
  k_segment: Int[Array, "b s"] | None = None,
  mask: str = "causal",
  window: int | None = None,
  scale: float | None = None,
  softcap: float | None = None,
  weights: str = "softmax",
  slopes: tuple[float, ...] | None = None,
  decays: tuple[float, ...] | None = None,
  impl: str = "auto",
) -> Float[Array, "b t h p"]:
  """y_t = sum_s softmax_s(cap(scale q_t . k_s) - slope |t - s|) v_s over the keys that t sees;  0 where it sees none.

  Head i uses keys and values i // (h / g). Scores and softmax in at least float32; y has the dtype of q.

  Args:
    q_position, k_position: places on one time line, of which only differences matter; their indices if not given.
    q_segment, k_segment: a token sees its own segment alone; -1 marks slots that hold nothing, whose content, NaN
      included, reaches neither values nor gradients. Keys of segment `visible.EVERYONE` are seen by all tokens,
      wherever they stand. None: all tokens belong together.
    mask: "causal": no key of a later position; "full": no such limit.
    window: how many positions back a token sees, itself included.
    scale: 1/sqrt(k) if not given.
    softcap: scores s become softcap * tanh(s / softcap).
    weights: "softmax", or a function in `kernels.attention.weights` of each score by itself: "relu2" or "laplace".
    slopes: for each head, what a score loses for each position between query and key (ALiBi).
    decays: for each entry of a head, the logarithm, at most 0, of what is left of its product after each position
      between (xPos): sum_i q_i k_i exp(decays_i (t - s)). The keys themselves stay as they are, and nothing overflows.

  Raises:
    ValueError: g does not divide h; `mask` or `weights` is unknown; `window` is below 1, `softcap` not above 0; of two
      position or segment arrays one is given; there is not a slope for each head, or not a decay for each entry, or one
      is above 0 or stands beside mask="full".
  """
  _check(q, k, mask, window, softcap, weights, slopes, decays)
  for what, pair in (("segment", (q_segment, k_segment)), ("position", (q_position, k_position))):
    if (pair[0] is None) != (pair[1] is None):
      raise Mistake(f"attention: one of q_{what} and k_{what} is given; give both or neither")
  where = op.Rows(None if q_segment is None else q_segment >= 0)
  if slopes is None and (copies := _copies(q.shape[2], k.shape[2])) > 1:
    k, v = (jnp.repeat(z, copies, axis=2) for z in (k, v))
  args = *where.fill(q), k, v, q_position, k_position, q_segment, k_segment
  over = OVER if slopes is None else OVER_TIME
  if over.cuts(args) == sequence_parallel.BY_TIME:
    # a device's queries do not begin at 0
    args = *args[:3], *places(q, k, q_position, k_position), *args[5:]
  scale = q.shape[-1] ** -0.5 if scale is None else scale
  rules: dict[str, Any] = dict(mask=mask, window=window, weights=weights, slopes=slopes, decays=decays)
  out = jax.ShapeDtypeStruct((*q.shape[:3], v.shape[-1]), q.dtype)
  return op.outputs("attention", IMPLS, impl, args, where, out=out, over=over, scale=scale, softcap=softcap, **rules)


def _copies(heads: int, groups: int) -> int:
  """Returns how many copies of groups of keys let devices divide the heads, where each would need all keys else."""
  mesh = jax.sharding.get_abstract_mesh()
  devices = sequence_parallel.count()
  parts = devices * mesh.shape.get("tensor", 1)
  return 1 if devices == 1 or groups in (1, parts) or heads % parts or parts % groups else parts // groups


def _check(q, k, mask, window, softcap, weights, slopes, decays) -> None:
  if q.shape[2] % k.shape[2]:
    raise Mistake(f"attention: {q.shape[2]} heads over {k.shape[2]} groups of keys; make the groups divide the heads")
  if mask not in MASKS:
    raise Mistake(f"attention: no mask {mask!r}; choose from {list(MASKS)}")
  if window is not None and window < 1:
    raise Mistake(f"attention: window={window}; it must be at least 1, or None")
  if softcap is not None and not softcap > 0:
    raise Mistake(f"attention: softcap={softcap}; it must be above 0, or None")
  if weights not in WEIGHTS:
    raise Mistake(f"attention: no weights {weights!r}; choose from {list(WEIGHTS)}")
  if slopes is not None and len(slopes) != q.shape[2]:
    raise Mistake(f"attention: {len(slopes)} slopes for {q.shape[2]} heads; give one for each")
  if decays is not None:
    if len(decays) != q.shape[3]:
      raise Mistake(f"attention: {len(decays)} decays for heads of size {q.shape[3]}; give one for each entry")
    if max(decays) > 0 or mask == "full":
      raise Mistake("attention: decays are at most 0 and look back only, so they need mask='causal'")
