"""One mixer under test: perturbed parameters, tokens, and its few compiled programs.

Compilation is what a test of a small mixer costs, so every check draws on the same programs, and rows of one batch
play the parts that would otherwise need shapes of their own: row i stops its prompt at LENGTHS[i] or starts documents
at STARTS[i].
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from layers.mixer import Mixer
from tests.quick import quick

# One row more than tokens: the Jacobian takes a row per token, and equal sizes would hide swapped axes.
B, T, D = 15, 14, 8
HALF = T // 2
PIECES = (1, T - 1)
MAX_LEN = 2 * T
# Five prompts and four ways of packing: fifteen of their twenty pairs.
LENGTHS = np.resize([0, 1, HALF, T - 1, T], B).astype(np.int32)
STARTS = tuple(((), (0,), (1, T - 1), (0, 3, 4, 9))[row % 4] for row in range(B))
FULL = np.full(B, T, np.int32)


class Tokens(NamedTuple):
  """What a mixer reads: x "b t d", and the side inputs it declares, name -> "b t …"."""

  x: Any
  side: Any = None

  def roll(self, start: int) -> "Tokens":
    """Token `start` first, wrapping around."""
    return jax.tree.map(lambda value: np.roll(value, -start, axis=1), self)

  def then(self, more: "Tokens", starts: np.ndarray) -> "Tokens":
    """T tokens of each row, from starts[i] of this on and then of what follows."""
    rows, index = np.arange(B)[:, None], starts[:, None] + np.arange(T)
    return jax.tree.map(lambda one, two: np.concatenate([one, two], axis=1)[rows, index], self, more)

  def until(self, lengths: np.ndarray, other: "Tokens") -> "Tokens":
    """Another's tokens past each row's length."""
    shape = lambda value: live(lengths).reshape(B, T, *[1] * (value.ndim - 2))
    return jax.tree.map(lambda one, two: np.where(shape(one), one, two), self, other)

  def cut(self, start: int, end: int) -> "Tokens":
    return jax.tree.map(lambda value: value[:, start:end], self)

  def poisoned(self, lengths: np.ndarray) -> "Tokens":
    """NaN past each row's length."""
    return self.until(lengths, jax.tree.map(lambda value: np.full_like(value, np.nan), self))


def live(lengths: np.ndarray) -> np.ndarray:
  return np.arange(T) < np.asarray(lengths)[:, None]


def resets(starts: tuple[tuple[int, ...], ...] = STARTS) -> np.ndarray:
  return np.array([[t in row for t in range(T)] for row in starts])


def split_floats(tree: Any) -> tuple[list, Callable[[list], Any]]:
  """The floating leaves, which have gradients, and the function that puts such leaves back."""
  leaves, treedef = jax.tree.flatten(tree)
  is_float = [jnp.issubdtype(leaf.dtype, jnp.inexact) for leaf in leaves]

  def rebuild(floats: list) -> Any:
    rest = iter(floats)
    return jax.tree.unflatten(treedef, [next(rest) if known else leaf for known, leaf in zip(is_float, leaves)])

  return [leaf for known, leaf in zip(is_float, leaves) if known], rebuild


def cast_floats(tree: Any, dtype: Any) -> Any:
  """Floating leaves at no less than `dtype`; complex ones stay complex."""
  wide = lambda leaf: jnp.issubdtype(leaf.dtype, jnp.inexact)
  return jax.tree.map(lambda leaf: leaf.astype(jnp.promote_types(leaf.dtype, dtype)) if wide(leaf) else leaf, tree)


def jit(fn: Callable) -> Callable:
  return jax.jit(fn, compiler_options=quick())


class Case:
  """A mixer and what it computes; arrays go in as numpy or jax and come out as numpy.

  Attributes:
    module: the mixer, unbound; of width D if it is one of tests/mixers/.
    exact: whether the Jacobian's zeros are exact; a Fourier transform leaves rounding errors there.
    side: (batch, tokens) -> value of each side input the mixer declares and this case gives it.
    dtype: float32, or float64 under `jax.enable_x64`.
    count: the number of parameters it should have.
    packs: whether its rows may hold several documents; otherwise it is never given resets.
    own_call: whether `__call__` is code of its own, and not prefill from an empty state as the base class has it.
  """

  def __init__(
    self,
    module: nn.Module,
    *,
    exact: bool = True,
    side: Mapping[str, Callable[[int, int], np.ndarray]] | None = None,
    dtype: Any = jnp.float32,
    count: int | None = None,
    packs: bool = True,
  ):
    self.module, self.exact, self.dtype, self.count, self.packs = module, exact, dtype, count, packs
    self.width, self.side_makers = module.width, side
    self.state = module.STATE
    self.tolerance = 2e-5 if dtype == jnp.float32 else 1e-11
    self.memoryless = self.state != "none" and not jax.tree.leaves(module.init_state(1, MAX_LEN))
    kind = type(module)
    self.own_call = kind.__call__ is not Mixer.__call__ or kind.mix_parallel is not Mixer.mix_parallel

  def noise(self, key: int, *shape: int) -> np.ndarray:
    return np.asarray(jax.random.normal(jax.random.key(key), shape, self.dtype))

  def make_tokens(self, key: int, b: int = B, t: int = T) -> Tokens:
    side = self.side_makers and {name: make(b, t).astype(self.dtype) for name, make in self.side_makers.items()}
    return Tokens(self.noise(key, b, t, self.width), side)

  @functools.cached_property
  def tokens(self) -> Tokens:
    return self.make_tokens(1)

  @functools.cached_property
  def more(self) -> Tokens:
    """What follows `tokens`."""
    return self.make_tokens(2)

  def init(self, key: jax.Array) -> Any:
    return nn.meta.unbox(self.module.init(key, jnp.zeros((2, 3, self.width), self.dtype)))

  @functools.cached_property
  def initial(self) -> Any:
    """Initial variables."""
    return dict(jit(self.init)(jax.random.key(0)))

  @functools.cached_property
  def variables(self) -> Any:
    """Initial values plus 0.1 noise on every parameter, so that a part which starts at zero hides nothing."""
    rng = np.random.default_rng(0)
    noisy = lambda leaf: leaf + 0.1 * rng.standard_normal(leaf.shape, np.float64).astype(leaf.dtype)
    params = jax.tree.map(noisy, jax.tree.map(np.asarray, self.initial.get("params", {})))
    return cast_floats({**self.initial, "params": params}, self.dtype)

  def init_state(self, batch: int = B, max_len: int = MAX_LEN) -> Any:
    return jax.tree.map(np.asarray, self.module.init_state(batch, max_len))

  def apply(self, variables: Any, tokens: Tokens, *args: Any, method: str = "__call__", **kwargs: Any) -> Any:
    return self.module.apply(variables, tokens.x, *args, side=tokens.side, method=method, **kwargs)

  @functools.cached_property
  def _call(self) -> Callable:
    return jit(lambda v, tokens, reset, lengths: self.apply(v, tokens, reset=reset, lengths=lengths))

  def no_resets(self, b: int = B, t: int = T) -> np.ndarray | None:
    return np.zeros((b, t), bool) if self.packs else None

  def call(self, tokens: Tokens, reset: Any = None, lengths: Any = None) -> np.ndarray:
    """In float32, one program for packed and padded rows, that of `prefill` where `__call__` is defined by it."""
    b, t, _ = tokens.x.shape
    if self.dtype == jnp.float32 and not (reset is None and lengths is None):
      reset = self.no_resets(b, t) if reset is None else reset
      lengths = np.full(b, t, np.int32) if lengths is None else lengths
      if not self.own_call:
        return self.prefill(tokens, self.init_state(), reset, lengths)[0]
    y = np.asarray(self._call(self.variables, tokens, reset, lengths))
    assert y.dtype == self.dtype, f"{y.dtype} for {np.dtype(self.dtype)}"
    return y

  @functools.cached_property
  def _prefill(self) -> Callable:
    return jit(lambda v, *args, **kwargs: self.apply(v, *args, method="prefill", **kwargs))

  def prefill(self, tokens: Tokens, state: Any, reset: Any = None, lengths: Any = None) -> tuple[np.ndarray, Any]:
    """One program for every combination of resets and lengths: absent ones are spelled out."""
    reset = self.no_resets() if reset is None else reset
    y, state = self._prefill(self.variables, tokens, state, reset=reset, lengths=FULL if lengths is None else lengths)
    return np.asarray(y), state

  @functools.cached_property
  def _pieces(self) -> Callable:
    def run(v, tokens, state):
      ys, ends = [], np.cumsum(PIECES)
      for start, end in zip(ends - PIECES, ends):
        y, state = self.apply(v, tokens.cut(start, end), state, method="prefill")
        ys.append(y)
      return jnp.concatenate(ys, axis=1), state

    return jit(run)

  def pieces(self, tokens: Tokens, state: Any) -> tuple[np.ndarray, Any]:
    """Prefill in two pieces, the first of one token, without resets or lengths."""
    y, state = self._pieces(self.variables, tokens, state)
    return np.asarray(y), state

  @functools.cached_property
  def _steps(self) -> Callable:
    def run(v, tokens, state):
      def one(state, token):
        y, state = self.apply(v, token, state, method="step")
        return state, y

      swap = lambda value: jnp.swapaxes(value, 0, 1)
      state, ys = jax.lax.scan(one, state, jax.tree.map(swap, tokens))
      return swap(ys), state

    return jit(run)

  def steps(self, tokens: Tokens, state: Any) -> tuple[np.ndarray, Any]:
    """T steps in a `lax.scan`."""
    y, state = self._steps(self.variables, tokens, state)
    return np.asarray(y), state

  @functools.cached_property
  def _gradients(self) -> Callable:
    def run(v, tokens, state, weights, reset, lengths):
      floats, rebuild = split_floats(state)

      def loss(params, x, floats):
        args = (v | {"params": params}, tokens._replace(x=x))
        if state is None:
          y = self.apply(*args, reset=reset, lengths=lengths)
        else:
          y, _ = self.apply(*args, rebuild(floats), method="prefill", reset=reset, lengths=lengths)
        return jnp.sum(y * weights)

      return jax.grad(loss, argnums=(0, 1, 2))(v.get("params", {}), tokens.x, floats)

    return jit(run)

  def gradients(self, tokens: Tokens, weights: np.ndarray, lengths: Any, state: Any = None, reset: Any = None) -> Any:
    """Of sum(y * weights), in parameters, x and the state's floating leaves; of `__call__` where state is None."""
    if state is None and self.dtype == jnp.float32 and not self.own_call:
      return self.gradients(tokens, weights, lengths, self.init_state(), self.no_resets())
    out = self._gradients(self.variables, tokens, state, weights, reset, lengths)
    return jax.tree.map(np.asarray, out)

  @functools.cached_property
  def y(self) -> np.ndarray:
    return self.call(self.tokens)

  @functools.cached_property
  def worn(self) -> Any:
    """A state that has seen T tokens."""
    return self.prefill(self.make_tokens(3), self.init_state())[1]

  def alone(self, tokens: Tokens, start: int, ends: np.ndarray) -> np.ndarray:
    """Outputs for each row's tokens[start:ends], as a sequence of its own."""
    # what follows a document must not reach back into it, so a causal mixer is asked without lengths
    lengths = (ends - start).astype(np.int32) if self.state == "none" else None
    return self.call(tokens.roll(start), None, lengths)
