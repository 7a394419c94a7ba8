"""Attention over a cache: causal or full, by document, in a window, with shared keys and a soft cap."""

from jaxtyping import Array, Float, Int

from kernels import dispatch, inputs
from kernels.attention import reference, xla
from kernels.attention.weights import POINTWISE

IMPLS = {"xla": (xla.attention, dispatch.always), "reference": (reference.attention, dispatch.always)}
MASKS = ("causal", "full")
WEIGHTS = ("softmax", *POINTWISE)


def attention(
  q: Float[Array, "b t h k"],
  k: Float[Array, "b s g k"],
  v: Float[Array, "b s g p"],
  *,
  q_position: Int[Array, "b t"],
  k_position: Int[Array, "b s"],
  q_segment: Int[Array, "b t"] | None = None,
  k_segment: Int[Array, "b s"] | None = None,
  mask: str = "causal",
  window: int | None = None,
  scale: float | None = None,
  softcap: float | None = None,
  weights: str = "softmax",
  impl: str = "auto",
) -> Float[Array, "b t h p"]:
  """y_t = sum_s softmax_s(cap(scale q_t . k_s)) v_s over the keys that token t sees;  0 where it sees none.

  Head i uses keys and values i // (h / g). Scores and softmax in at least float32; y has the dtype of q.

  Args:
    q_position, k_position: places on one time line, of which only differences matter.
    q_segment, k_segment: a token sees its own segment alone; -1 marks slots that hold nothing, whose content, NaN
      included, reaches neither values nor gradients. None: all tokens belong together.
    mask: "causal": no key of a later position; "full": no such limit.
    window: how many positions back a token sees, itself included.
    scale: 1/sqrt(k) if not given.
    softcap: scores s become softcap * tanh(s / softcap).
    weights: "softmax", or a function in `kernels.attention.weights` of each score by itself: "relu2" or "laplace".
    impl: "auto" or a name in IMPLS.

  Raises:
    ValueError: g does not divide h; `mask` or `weights` is unknown; one segment array is given without the other;
      `impl` does not exist or cannot run these arguments.
  """
  if q.shape[2] % k.shape[2]:
    raise ValueError(
      f"attention: {q.shape[2]} heads over {k.shape[2]} groups of keys; make the groups divide the heads"
    )
  if mask not in MASKS:
    raise ValueError(f"attention: no mask {mask!r}; choose from {list(MASKS)}")
  if weights not in WEIGHTS:
    raise ValueError(f"attention: no weights {weights!r}; choose from {list(WEIGHTS)}")
  if (q_segment is None) != (k_segment is None):
    raise ValueError("attention: one of q_segment and k_segment is given; give both or neither")
  y_dtype = q.dtype
  if q_segment is not None:
    (q,) = inputs.blank(q_segment >= 0, q)
  where = (q_position, k_position, q_segment, k_segment)
  scale = q.shape[-1] ** -0.5 if scale is None else scale
  settings = dict(mask=mask, window=window, scale=scale, softcap=softcap, weights=weights)
  y = dispatch.pick("attention", IMPLS, impl, q, k, v, *where, **settings)(q, k, v, *where, **settings)
  if q_segment is not None:
    # whatever gradient comes in for a row that is not there, NaN perhaps, stays outside
    (y,) = inputs.blank(q_segment >= 0, y)
  return y.astype(y_dtype)
