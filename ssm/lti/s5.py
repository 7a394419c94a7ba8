"""S5: one diagonal state space from all channels to all channels. State: fixed (none if bidirectional).

Smith, Warrington & Linderman 2023, arXiv:2208.04933. Theirs: H -> d, P -> state, J -> blocks, L -> t, Delta -> dt.
"""

from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Complex, Float

from kernels.linear_scan import linear_scan
from layers import Dense, param, reversal
from layers.choices import one_of
from layers.initializers import constant, log_step
from layers.mixer import Mixer, Where
from layers.sizes import above_zero
from mistake import Mistake
from ssm.lti import dense_io, discretization, hippo

C_INITS = ("trunc_standard_normal", "lecun_normal", "complex_normal")


class State(NamedTuple):
  h: Complex[Array, "b n"]  # complex64


class S5(Mixer):
  """h_t = Abar h_{t-1} + Bbar x_t,  y_t = 2 Re(C h_t) + D x_t;  Abar, Bbar from A = lam and B by `disc`     sec. 3

  followed by a GELU and a gate (app. G). Departs: nothing, with two remarks. Variances of B and C are those of the
  authors' code: Var B = 1/P, Var C = 1/P ("trunc_standard_normal") or 1/(HP) ("lecun_normal"). `side={"dt": ...}` gives
  irregular samples: token t comes `dt` steps after the one before it, and its step in `disc` is dt times the learned
  one (sec. 6.3; their main branch ignores it).

  Attributes:
    state: P, real numbers: twice the conjugate pairs.
    blocks: J; the initial spectrum is J copies of that of HiPPO-LegS of size P/J.
    conj_sym: conjugate pairs are stored once. If not, `state` complex numbers stand alone and y = Re(C h) + D x.
    C_init: "trunc_standard_normal", "lecun_normal" (both in the basis of HiPPO) or "complex_normal" (in that of h).
    disc: "zoh" or "bilinear".
    dt_min, dt_max: range of the initial time step; log-uniform, one per state.
    step_rescale: factor on all time steps, for data sampled more coarsely than the training data.
    bidirectional: a second scan runs from the end, with the gaps after each token, and C reads the states of both.
    clip_eigs: keeps Re(lam) <= -1e-4, so that no state grows.
    activation: with g = GELU(y), tanh form: "half_glu1" g sigmoid(W g), "half_glu2" y sigmoid(W g), "full_glu"
      V g sigmoid(W g), "gelu_tanh" g; "gelu" by erf, or "none" y.
  """

  width: int
  state: int = 64
  blocks: int = 1
  conj_sym: bool = True
  C_init: str = "trunc_standard_normal"
  disc: str = "zoh"
  dt_min: float = 1e-3
  dt_max: float = 1e-1
  step_rescale: float = 1.0
  bidirectional: bool = False
  clip_eigs: bool = False
  activation: str = "half_glu1"

  SIDE = ("dt",)
  DISCS = tuple(discretization.RULES)

  @property
  def STATE(self) -> str:
    """Is fixed; none if bidirectional."""
    return "none" if self.bidirectional else "fixed"

  def setup(self):
    lam, V = self._spectrum()
    n = lam.shape[0]
    self.lam_re = param(self, "lam_re", constant(lam.real), (n,), ("state",), slow=True)
    self.lam_im = param(self, "lam_im", constant(lam.imag), (n,), ("state",), slow=True)
    # One draw makes both parts of a complex matrix, which share a change of basis. Later, Flax asks for shapes alone.
    ways = 2 if self.bidirectional else 1
    keys = jax.random.split(self.make_rng("params") if self.is_initializing() else jax.random.key(0), 1 + ways)
    make_B = lambda: _initial_B(keys[0], V, self.width)
    one_C = lambda way: _initial_C(keys[1 + way], V, self.width, self.C_init)
    make_C = lambda: jnp.concatenate([one_C(way) for way in range(ways)], axis=1)
    axes = ("state", "embed")
    self.B_re = param(self, "B_re", lambda *_: make_B().real, (n, self.width), axes, slow=True)
    self.B_im = param(self, "B_im", lambda *_: make_B().imag, (n, self.width), axes, slow=True)
    self.C_re = param(self, "C_re", lambda *_: make_C().real, (self.width, ways * n), axes[::-1])
    self.C_im = param(self, "C_im", lambda *_: make_C().imag, (self.width, ways * n), axes[::-1])
    self.D = param(self, "D", nn.initializers.normal(1.0), (self.width,), ("embed",))
    self.log_dt = param(self, "log_dt", log_step(self.dt_min, self.dt_max), (n,), ("state",), slow=True)
    dense = lambda: Dense(self.width, use_bias=True, axes=("embed", "inner"))
    self.gate = None if self.activation in dense_io.UNGATED else dense()
    self.out_proj = dense() if self.activation == "full_glu" else None

  @nn.nowrap
  def init_state(self, batch: int, max_len: int) -> State:
    self._require_state()
    return State(h=jnp.zeros((batch, self.state // 2 if self.conj_sym else self.state), complex))

  def mix_parallel(self, x: Float[Array, "b t d"], where: Where) -> Float[Array, "b t d"]:
    if not self.bidirectional:
      return super().mix_parallel(x, where)
    dt = where.side.get("dt")
    A, Bx = self._discrete(x, dt)
    empty = jnp.zeros_like(Bx, shape=(x.shape[0], Bx.shape[2]))
    h, _ = linear_scan(A, Bx, empty, **where.masks)
    order = reversal.order(x.shape[0], x.shape[1], where.lengths)
    if dt is None:
      Bx = reversal.at(Bx, order)
    else:
      A, Bx = self._discrete(reversal.at(x, order), reversal.gaps(dt, order, **where.masks))
    back_reset = None if where.reset is None else reversal.at(reversal.last_of_document(where.reset), order)
    back, _ = linear_scan(A, Bx, empty, reset=back_reset, lengths=where.lengths)
    return self._read(jnp.concatenate([h, reversal.at(back, order)], axis=-1), x)

  def mix(self, x: Float[Array, "b t d"], state: State, where: Where) -> tuple[Float[Array, "b t d"], State]:
    A, Bx = self._discrete(x, where.side.get("dt"))
    h, last = linear_scan(A, Bx, state.h, **where.masks)
    return self._read(h, x), State(h=last)

  @nn.nowrap
  def no_state(self) -> str:
    return "bidirectional=True sees later tokens, so it has no state; call it"

  @nn.nowrap
  def _spectrum(self) -> tuple[np.ndarray, np.ndarray]:
    """Returns the first lam and its eigenvectors, columns of V; of pairs those with negative imaginary parts."""
    size = self.state // self.blocks
    n = size // 2 if self.conj_sym else size
    lam, V = hippo.legs_normal(size)
    return np.tile(lam[:n], self.blocks), np.kron(np.eye(self.blocks), V[:, :n])

  def _discrete(
    self, x: Float[Array, "b t d"], dt: Float[Array, "b t"] | None
  ) -> tuple[Complex[Array, "*bt n"], Complex[Array, "b t n"]]:
    """Returns Abar, which without `dt` is one for all tokens, and Bbar x."""
    lam_re = jnp.minimum(self.lam_re, -1e-4) if self.clip_eigs else self.lam_re
    steps = self.step_rescale * jnp.exp(self.log_dt)
    gap = jnp.ones((1,), steps.dtype) if dt is None else dt[..., None].astype(steps.dtype)
    log_A, scale = discretization.EVENT_RULES[self.disc](steps, jax.lax.complex(lam_re, self.lam_im), gap)
    if dt is not None:
      return jnp.exp(log_A), scale * dense_io.into_state(x, self.B_re, self.B_im)
    # multiplying B costs less than multiplying B x, which has a row for every token
    B = scale[:, None] * jax.lax.complex(self.B_re, self.B_im)
    return jnp.exp(log_A), dense_io.into_state(x, B.real, B.imag)

  def _read(self, h: Complex[Array, "b t n"], x: Float[Array, "b t d"]) -> Float[Array, "b t d"]:
    """Returns 2 Re(C h) + D x through the activation."""
    pairs = 2 if self.conj_sym else 1
    y = dense_io.read_out(h, pairs * self.C_re, pairs * self.C_im, x.dtype) + self.D * x
    return dense_io.activate(self.activation, y.astype(x.dtype), self.gate, self.out_proj)

  @nn.nowrap
  def check(self) -> None:
    name, state, blocks = type(self).__name__, self.state, self.blocks
    if state < 1 or blocks < 1 or state % blocks:
      raise Mistake(f"{name}: blocks={blocks} does not divide state={state}")
    if self.conj_sym and (state // blocks) % 2:
      raise Mistake(
        f"{name}: state={state} in blocks={blocks} makes blocks of {state // blocks}; conjugate pairs are stored once, "
        "so a block must be even (or set conj_sym=False)"
      )
    one_of(self, C_init=C_INITS, disc=self.DISCS, activation=dense_io.ACTIVATIONS)
    above_zero(self, "step_rescale")
    log_step(self.dt_min, self.dt_max)  # raises


def _initial_B(key, V: np.ndarray, width: int) -> Complex[Array, "n d"]:
  """Draws V* G for a real G with entries of variance 1/P."""
  G = nn.initializers.lecun_normal()(key, (V.shape[0], width))
  return jnp.asarray(V.conj().T, jnp.complex64) @ G


def _initial_C(key, V: np.ndarray, width: int, kind: str) -> Complex[Array, "d n"]:
  """Draws G V for a complex G or, for "complex_normal", complex normal numbers."""
  P, n = V.shape
  if kind == "complex_normal":
    re, im = jax.random.normal(key, (2, width, n)) * 0.5**0.5
    return jax.lax.complex(re, im)
  # "trunc_standard_normal" draws row by row, so that its variance does not depend on the number of rows
  lecun = nn.initializers.lecun_normal(batch_axis=(0,) if kind == "trunc_standard_normal" else ())
  G = lecun(key, (width, P, 2))
  return jax.lax.complex(G[..., 0], G[..., 1]) @ jnp.asarray(V, jnp.complex64)
