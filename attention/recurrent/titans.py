"""Titans' neural memory: a small network that each token trains by gradient descent with momentum. State: fixed.

Behrouz, Zhong & Mirrokni 2025, arXiv:2501.00663. Theirs: theta -> rate, 1 - alpha -> keep, L_M -> layers.
"""

import math
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from kernels import inputs
from kernels.delta_rule import delta_rule
from kernels.documents import positions
from kernels.neural_memory import Memory, neural_memory, recall
from layers import Dense, RMSNorm, param, torch_dense
from layers.initializers import constant, uniform_fan_in
from layers.mixer import Mixer, Where
from layers.qkv import ConvQKV, unit
from layers.sizes import at_least_one
from mistake import Mistake

# Initial biases of theta, eta and alpha before their sigmoids, of which the paper says nothing.
RATE, ETA, ALPHA = -3.0, 0.0, -5.0


class State(NamedTuple):
  """The weights of the memory, one array for each of its layers, all float32."""

  start: tuple[Float[Array, "b h ..."], ...]  # where the current chunk began; none with chunks of one token
  weights: tuple[Float[Array, "b h ..."], ...]
  momentum: tuple[Float[Array, "b h ..."], ...]  # none without momentum
  length: Int[Array, "b"]  # tokens of the document so far; at 0 the weights are the initial ones
  taps: Float[Array, "b w e"]  # the last inputs of the short convolution


class Titans(Mixer):
  """S_t = eta_t S_{t-1} - theta_t grad |M(k_t) - v_t|^2,  M_t = (1 - alpha_t) M_{t-1} + S_t,  y_t = M_t(q_t)   sec. 3.1

  for each head, with q, k and v after a short convolution and SiLU, q and k of length 1, eta and alpha sigmoids of
  linear maps of x and theta `rate_max` times one; W_o norm(y) is the result. M is a network of `layers` matrices with
  SiLU between them. All gradients of a chunk, which counts from the document's start, are taken at the weights with
  which it began (sec. 3.2). A linear memory starts at 0, a deep one at learned weights.
  This is the memory alone ("LMM"); `titans_mac`, `titans_mag` and `titans_mal` have it beside attention.
  Departs: the paper gives no initial values, no bound of theta and no norm of y; these are ours. Its steps can diverge:
  the tokens of a chunk all step from the same weights, and momentum repeats each step 1 / (1 - eta) times, so that a
  chunk of equal tokens overshoots the value it stores, each time by more; and momentum that outlasts its keys moves the
  memory on while others come. Here theta_t is at most (1 - eta_t) / (2 chunk curvature_t), and eta_t at most
  1 - 1 / max(chunk, 2), see `bounded`.

  Attributes:
    heads: memories side by side; one in the paper.
    layers: L_M; 1 is a linear memory.
    inner: width between the layers of a memory; four times a head's, if not given.
    chunk: tokens whose gradients are taken at the same weights.
    rate_max: the largest theta. For keys of length 1, a step of 1/2 stores a value in a linear memory at once.
    bounded: whether theta and eta have the bounds above, with which a chunk of equal tokens stores its value and no
      more, and the error of one key does not grow whatever the gates: curvature_t is |k_t|^2 for a linear memory, in
      general |grad_M loss|^2 / |grad_{M(k)} loss|^2. False is the paper's form.
    momentum, decay: whether there is eta, and alpha.
    taps: width of the short convolution.
    depth: layers of the model; W_o starts smaller by its square root.
  """

  width: int
  heads: int = 1
  layers: int = 2
  inner: int | None = None
  chunk: int = 16
  rate_max: float = 0.5
  bounded: bool = True
  momentum: bool = True
  decay: bool = True
  taps: int = 4
  norm_eps: float = 1e-5
  depth: int = 1

  @nn.nowrap
  def check(self) -> None:
    at_least_one(self, "width", "heads", "layers", "inner", "chunk", "taps", "depth")
    if self.width % self.heads:
      raise Mistake(f"Titans: heads={self.heads} does not divide width={self.width}")
    if not self.rate_max > 0:
      raise Mistake(f"Titans: rate_max={self.rate_max}; it must be above 0")

  def setup(self):
    self.qkv = self._qkv()
    biases = [RATE] + [ETA] * self.momentum + [ALPHA] * self.decay
    self.gates = Dense(
      len(biases) * self.heads,
      use_bias=True,
      kernel_init=uniform_fan_in(),
      bias_init=constant(jnp.repeat(jnp.array(biases), self.heads)),
      axes=("embed", "heads"),
    )
    if self.layers > 1:
      axes = ("heads", None, None)
      learned = [param(self, f"M_{i}", uniform_fan_in(), (self.heads, *s), axes) for i, s in enumerate(self._shapes)]
      self.initial = tuple(learned)
    self.norm = RMSNorm(eps=self.norm_eps, axis=None)
    self.out_proj = torch_dense(self.width, ("heads", "embed"), gain=self.depth**-0.5)

  @nn.nowrap
  def init_state(self, batch: int, max_len: int) -> State:
    """Returns zeros, which stand for the initial weights before the first token."""
    zeros = tuple(jnp.zeros((batch, self.heads, *shape)) for shape in self._shapes)
    return State(
      start=zeros if self.chunk > 1 else (),
      weights=zeros,
      momentum=zeros if self.momentum else (),
      length=jnp.zeros((batch,), jnp.int32),
      taps=self._qkv(parent=None).init_taps(batch),
    )

  def mix(self, x: Float[Array, "b t d"], state: State, where: Where) -> tuple[Float[Array, "b t d"], State]:
    (q, k, v), taps = self.qkv(x, state.taps, **where.masks)
    rate, log_eta, log_keep = self._gates(x, k.dtype)
    # as long as the keys that the memory was trained on
    q = q * q.shape[-1] ** 0.5
    if self.layers == 1 and self.chunk == 1 and not self.momentum:
      rate = jnp.minimum(rate, 0.5) if self.bounded else rate  # the keys have length 1
      S, written, decay = state.weights[0], 2 * rate[..., None] * k, log_keep[..., None]
      y, S = delta_rule(q, written, v, k, S, None, decay, **where.masks)
      memory = Memory((), (S,), (), positions(state.length, x.shape[1], **where.masks)[1])
    else:
      weights, tokens = state.weights, (q, k, v, rate, log_eta, log_keep)
      old = Memory(state.start or weights, weights, state.momentum or tuple(map(jnp.zeros_like, weights)), state.length)
      size: dict[str, Any] = dict(chunk=self.chunk, bounded=self.bounded)
      y, memory = neural_memory(*tokens, self._initial(), old, **size, **where.masks)
    following = State(
      start=memory.start if self.chunk > 1 else (),
      weights=memory.weights,
      momentum=memory.momentum if self.momentum else (),
      length=memory.length,
      taps=taps,
    )
    return self._out(y), following

  def weights(self, state: State) -> tuple[Float[Array, "b h ..."], ...]:
    """Returns the weights M of a state: the initial ones before the first token of a document."""
    starts = state.length == 0
    return tuple(inputs.where(starts, initial, now) for initial, now in zip(self._initial(), state.weights))

  def recall(self, weights: tuple[Float[Array, "b h ..."], ...], q: Float[Array, "b t d"]) -> Float[Array, "b t d"]:
    """Returns W_o norm(M(q)) without training M, with q scaled to the length of the queries in `mix`."""
    wide = unit(jax.nn.silu(q).reshape(*q.shape[:-1], self.heads, -1))
    return self._out(recall(weights, wide).astype(q.dtype))

  def _initial(self) -> tuple[Float[Array, "h ..."], ...]:
    return self.initial if self.layers > 1 else tuple(jnp.zeros((self.heads, *shape)) for shape in self._shapes)

  def _out(self, y: Float[Array, "b t h p"]) -> Float[Array, "b t d"]:
    """Returns W_o norm(y)."""
    return self.out_proj(self.norm(y).reshape(*y.shape[:-2], -1))

  def _gates(self, x: Float[Array, "b t d"], dtype: jnp.dtype) -> tuple[Float[Array, "b t h"], ...]:
    """Returns theta, log eta and log(1 - alpha)."""
    gates = iter(jnp.split(self.gates(x).astype(dtype), 1 + self.momentum + self.decay, axis=-1))
    rate = self.rate_max * jax.nn.sigmoid(next(gates))
    log_eta = jax.nn.log_sigmoid(next(gates)) if self.momentum else jnp.full_like(rate, -math.inf)
    log_keep = jax.nn.log_sigmoid(-next(gates)) if self.decay else jnp.zeros_like(rate)
    return rate, log_eta, log_keep

  @property
  def _shapes(self) -> list[tuple[int, int]]:
    """Returns the shapes of the matrices of one memory."""
    size = self.width // self.heads
    between = [self.inner or 4 * size] * (self.layers - 1)
    return list(zip([size, *between], [*between, size]))

  @nn.nowrap
  def _qkv(self, **kwargs) -> ConvQKV:
    size = self.width // self.heads
    return ConvQKV(self.heads, self.heads, size, size, taps=self.taps, **kwargs)
