"""Divides the time axis of an op over the devices of the mesh's axis `sequence`.

Device i has tokens i t/p ... (i+1) t/p - 1 of all rows and needs the state h_i that enters them. Whatever the op, it
runs its own part once, from that state: what differs is how the devices find h_i, which is an `Exchange`.

  Linear     The last state of a part is T_i h_i + l_i, where T_i is the part's total transition and l_i its last state
             from zeros. Each device computes both, all gather the p pairs, and each goes through them. Nothing else is
             as large as a state, and no token leaves its device.
  Neighbour  The last state of a part depends on its own tokens alone, as that of a short convolution: it goes to the
             next device.
  InTurn     Of a recurrence that is not linear in its state nothing is known before h_i is. The devices run one after
             the other: memory is divided, time is not.

The backward pass is the same with the time reversed. Let (y, last) = f(x, h) be one device's part. In the first case f
is affine in h, so the cotangent of h_i is T_i^T last_bar_i + g_i, where g_i comes from y_bar alone. The devices gather
the pairs (T_i, g_i), find their last_bar_i, and run the backward pass of f once with it: the gradients in x are exact,
and T_i needs none. In all, an op costs one more pass to the last state than on one device, in each direction. XLA
leaves out of it what only the outputs need; a kernel computes them.

Attention and convolutions with as many taps as tokens have no such state. Their heads or channels are divided in place
of the time, and XLA exchanges the two (all-to-all): see `OverChannels`.
"""

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int, Shaped

from kernels import dispatch

AXIS = "sequence"
# heads and channels are cut over what cut the time, too
BY_CHANNELS = {"b": ("data", "fsdp"), "hge": ("tensor", AXIS)}
BY_TIME = {"b": ("data", "fsdp"), "hge": ("tensor",), "t": (AXIS,)}
# how a layer has them before and after such an op
AROUND = {**BY_TIME, "s": (AXIS,)}


def count() -> int:
  """Returns how many devices of the ambient mesh share the time axis; 1 inside of another shard_map."""
  mesh = jax.sharding.get_abstract_mesh()
  return 1 if mesh.empty or mesh.manual_axes else mesh.shape.get(AXIS, 1)


def apart(z: Shaped[Array, "b t ..."]) -> Shaped[Array, "..."]:
  """Makes the part of a row that each device has a row of its own, for what looks at no other token.

  A device's rows come after one another, which is what XLA can divide without moving anything.
  """
  devices = count()
  if devices == 1 or z.shape[1] % devices:
    return z
  parts = z.reshape(len(z), devices, -1, *z.shape[2:]).swapaxes(0, 1)
  return parts.reshape(-1, *parts.shape[2:])


class Line(NamedTuple):
  """The devices that share the time axis of a batch, in the order of its tokens."""

  devices: int
  ends: Int[Array, "b"]  # the device that has the last token of each row

  def ending(self, device: Any, z: Any) -> Any:
    """Returns z for the rows that end on a device, zeros for others."""
    return _each(lambda z: _where(self.ends == device, z, jnp.zeros_like(z)), z)


class Exchange(Protocol):
  """How devices find the states that enter their parts, and the cotangents of those that leave them."""

  def entering(self, line: Line, args: Sequence[Any], last: Callable[[Any], Any], h: Any) -> tuple[Any, Any]:
    """Returns the state that enters this device's part, where h enters the first one, and what `leaving` needs.

    Args:
      args: those of the op, as far as they are this device's.
      last: from the state that enters this device's part to the one that leaves it.
    """

  def leaving(self, line: Line, kept: Any, pull: Callable[[Any], Any], last_bar: Any) -> Any:
    """Returns the cotangent of the state that leaves this device's part.

    Args:
      pull: from that to the cotangent of the state that enters it.
      last_bar: the cotangent of the state after each row's last token.
    """


def affine(T: Array, h: Array, last: Array) -> Array:
  """Returns T h + last, entry by entry; a T of 0 forgets a state that is not finite, too."""
  return jnp.where(T == 0, 0, T * h) + last


def affine_by_rows(T: Array, h: Array, last: Array) -> Array:
  """Returns T h + last for states "b h k p" and transitions that are matrices "b h k k"."""
  return jnp.einsum("bhij,bhjp->bhip", T, h, precision=jax.lax.Precision.HIGHEST) + last


class Linear(NamedTuple):
  """The exchange of recurrences that are linear in the state.

  Attributes:
    transition: from the op's arguments to T.
    join: (T, h, last) -> T h + last, in the op's own sense of product and sum.
    empty: the state that adds nothing.
  """

  transition: Callable[..., Any]
  join: Callable[[Any, Array, Array], Array] = affine
  empty: float = 0

  def entering(self, line, args, last, h):
    own = self.transition(*args), last(jnp.full_like(h, self.empty))
    here = jax.lax.axis_index(AXIS)

    def device(carry, of):
      h, mine = carry
      index, (T, last) = of
      return (self.join(T, h, last), jnp.where(index == here, h, mine)), None

    every = jnp.arange(line.devices), jax.lax.all_gather(own, AXIS)
    return jax.lax.scan(device, (h, h), every)[0][1], own[0]

  def leaving(self, line, kept, pull, last_bar):
    zero, here = jnp.zeros_like(last_bar), jax.lax.axis_index(AXIS)
    # where a row ends, T counts its padding, too: what comes from that state goes another way
    ending = line.ending(here, last_bar)

    def device(carry, of):
      bar, mine = carry
      index, (T, own) = of
      (back,) = jax.linear_transpose(lambda h: self.join(T, h, zero), zero)(bar)
      return (back + own, jnp.where(index == here, bar, mine)), None

    every = jnp.arange(line.devices), jax.lax.all_gather((kept, pull(ending)), AXIS)
    return ending + jax.lax.scan(device, (zero, zero), every, reverse=True)[0][1]


class Neighbour(NamedTuple):
  """The exchange of ops whose last state depends on their own tokens alone."""

  def entering(self, line, args, last, h):
    before = _shift(last(jnp.zeros_like(h)), line.devices, 1)
    return jnp.where(jax.lax.axis_index(AXIS) == 0, h, before), None

  def leaving(self, line, kept, pull, last_bar):
    here = jax.lax.axis_index(AXIS)
    after = _shift(pull(jnp.zeros_like(last_bar)), line.devices, -1)
    return jnp.where(here == line.devices - 1, 0, after) + line.ending(here, last_bar)


class InTurn(NamedTuple):
  """The exchange of recurrences that are not linear in their state: the devices run one after the other."""

  def entering(self, line, args, last, h):
    here = jax.lax.axis_index(AXIS)

    def turn(carry, index):
      h, mine = carry
      mine = _each(functools.partial(_where, index == here), h, mine)
      h = jax.lax.cond(index == here, last, lambda h: h, h)
      return (_shift(h, line.devices, 1), mine), None

    return jax.lax.scan(turn, (h, h), jnp.arange(line.devices))[0][1], None

  def leaving(self, line, kept, pull, last_bar):
    here = jax.lax.axis_index(AXIS)

    def turn(carry, index):
      bar, mine = carry
      bar = _each(jnp.add, bar, line.ending(index, last_bar))
      mine = _each(functools.partial(_where, index == here), bar, mine)
      bar = jax.lax.cond(index == here, pull, lambda bar: bar, bar)
      return (_shift(bar, line.devices, -1), mine), None

    zero = _each(jnp.zeros_like, last_bar)
    return jax.lax.scan(turn, (zero, zero), jnp.arange(line.devices), reverse=True)[0][1]


class Over(NamedTuple):
  """States how an op with a state is divided over time; called with its implementation and arguments, does it.

  Attributes:
    axes: the letters of each argument's first axes, "b t e": "t" is time, and those of `dispatch.CUTS` may be cut, too.
      They hold for all leaves of an argument that is a tree, unless a tree of letters stands there. None: no array.
    out: those of y.
    state: the index of the state among the arguments.
    lengths: that of the lengths of the rows, if there are any.
    least: how many tokens each device must have.
  """

  axes: tuple[Any, ...]
  out: str
  state: int
  exchange: Exchange
  lengths: int | None = None
  least: int = 2

  def __call__(self, run: Callable[..., tuple[Array, Any]], *args: Any) -> tuple[Array, Any]:
    """Returns `run(*args)`; where t does not divide over the devices, it is left to XLA how they share the work."""
    sizes, devices = _sizes(self.axes, args), count()
    if devices == 1 or sizes["t"] % devices or sizes["t"] // devices < self.least:
      return run(*args)
    cut = dispatch.cut(sizes, jax.sharding.get_abstract_mesh().shape, BY_TIME)
    specs = tuple(_specs(axes, cut) for axes in self.axes)
    divided = jax.shard_map(
      lambda *arrays: self.part(run, devices, *self._with(args, arrays)),
      in_specs=tuple(specs[i] for i in self._arrays),
      out_specs=(_specs(self.out, cut), specs[self.state]),
      # kernels do not say over which axes their results vary
      check_vma=False,
    )
    return divided(*(args[i] for i in self._arrays))

  @property
  def _arrays(self) -> list[int]:
    return [i for i, axes in enumerate(self.axes) if axes is not None]

  def _with(self, args: Sequence[Any], arrays: Sequence[Any]) -> list[Any]:
    """Returns the arguments with other arrays."""
    whole = list(args)
    for i, array in zip(self._arrays, arrays, strict=True):
      whole[i] = array
    return whole

  def part(self, run: Callable[..., tuple[Array, Any]], devices: int, *args: Any) -> tuple[Array, Any]:
    """Runs one device's part, and returns its y and the last state of each row, which all devices have then.

    Args:
      devices: how many share the axis AXIS, on which this is called.
      args: the device's, but the lengths are those of whole rows.
    """
    given, slot = list(args), self._arrays.index(self.state)
    tokens, state = _sizes(self.axes, given)["t"], given[self.state]
    ends = jnp.full(jax.tree.leaves(state)[0].shape[:1], devices - 1)
    if self.lengths is not None and given[self.lengths] is not None:
      given[self.lengths], ends = _own(given[self.lengths], tokens)

    def f(*arrays):
      y, last = run(*self._with(given, arrays))
      return y, jax.tree.unflatten(jax.tree.structure(state), jax.tree.leaves(last))

    from_state = lambda arrays, h: (*arrays[:slot], h, *arrays[slot + 1 :])

    @jax.custom_vjp
    def both(ends, *arrays):
      return forward(ends, *arrays)[0]

    def forward(ends, *arrays):
      line = Line(devices, ends)
      last_of = lambda h: f(*from_state(arrays, h))[1]
      h, kept = self.exchange.entering(line, self._with(given, arrays), last_of, arrays[slot])
      (y, last), pull = jax.vjp(f, *from_state(arrays, h))
      last = line.ending(jax.lax.axis_index(AXIS), last)
      return (y, _each(_sum, last)), (ends, kept, pull)

    def backward(saved, bars):
      ends, kept, pull = saved
      y_bar, last_bar = bars
      # where devices hold one result together, each has its share of the cotangent
      last_bar = _each(_sum, last_bar)
      last_bar = self.exchange.leaving(Line(devices, ends), kept, lambda bar: pull((y_bar, bar))[slot], last_bar)
      bars = pull((y_bar, last_bar))
      first = jax.lax.axis_index(AXIS) == 0
      return None, *from_state(bars, _each(lambda z: jnp.where(first, z, 0), bars[slot]))

    both.defvjp(forward, backward)
    return both(ends, *(given[i] for i in self._arrays))


class OverChannels(NamedTuple):
  """States how heads or channels of an op are divided over the devices that share the time.

  Each device has all of the time then. Where they do not divide, the time of what has a "t" among its letters is
  divided, and every device gets all of the rest, as keys and values.

  Attributes:
    axes: the letters of each argument's axes, as in `dispatch.shard`.
    out: those of y.
  """

  axes: tuple[str, ...]
  out: str

  def __call__(self, run: Callable[..., Array], *args: Any) -> Array:
    """Returns `run(*args)`; if nothing divides, it is left to XLA how devices share the work."""
    if (cuts := self.cuts(args)) is None:
      return run(*args)
    cut = dispatch.cut(_sizes(self.axes, args), jax.sharding.get_abstract_mesh().shape, AROUND)

    def here(z: Array, axes: str) -> Array:
      # else XLA takes the op's cut for what made its arguments, too, and gathers that layer's input
      return jax.lax.with_sharding_constraint(z, _specs(axes, cut)) if z is not None and "b" in axes else z

    divided = dispatch.shard(lambda *given: (run(*given),), self.axes, (self.out,), cuts)
    return here(divided(*map(here, args, self.axes))[0], self.out)

  def cuts(self, args: Sequence[Any]) -> Mapping[str, tuple[str, ...]] | None:
    """Returns what is cut, BY_CHANNELS or BY_TIME; None if nothing is."""
    if count() == 1:
      return None
    sizes, mesh = _sizes(self.axes, args), jax.sharding.get_abstract_mesh().shape
    divides = lambda cuts: any(AXIS in names for names in dispatch.cut(sizes, mesh, cuts).values())
    return next((cuts for cuts in (BY_CHANNELS, BY_TIME) if divides(cuts)), None)


def _pairs(axes: Any, arg: Any) -> Iterator[tuple[str, Array]]:
  """Yields the letters of each array of an argument."""
  if isinstance(axes, str):
    yield from ((axes, leaf) for leaf in jax.tree.leaves(arg))
  elif axes is not None:
    for some, of in zip(axes, arg, strict=True):
      yield from _pairs(some, of)


def _sizes(axes: Sequence[Any], args: Sequence[Any]) -> dict[str, int]:
  pairs = [pair for some, arg in zip(axes, args, strict=True) for pair in _pairs(some, arg)]
  return {letter: size for letters, leaf in pairs for letter, size in zip(letters.split(), leaf.shape)}


def _specs(axes: Any, cut: Mapping[str, tuple[str, ...]]) -> Any:
  return jax.tree.map(lambda letters: jax.P(*(cut.get(letter) for letter in letters.split())), axes)


def _own(lengths: Int[Array, "b"], tokens: int) -> tuple[Int[Array, "b"], Int[Array, "b"]]:
  """Returns how many tokens of each row are this device's, and the device with the row's last one."""
  own = jnp.clip(lengths - jax.lax.axis_index(AXIS) * tokens, 0, tokens)
  return own, jnp.maximum(lengths - 1, 0) // tokens


def _shift(tree: Any, devices: int, by: int) -> Any:
  """Hands arrays to the next device, or with -1 to the one before; the one at an end gets those of the other end."""
  pairs = [(i, (i + by) % devices) for i in range(devices)]
  return _each(lambda z: jax.lax.ppermute(z, AXIS, pairs), tree)


def _sum(z: Array) -> Array:
  """Returns the sum over devices; of complex numbers by parts, since XLA for CPUs aborts on those that are all 0."""
  if jnp.iscomplexobj(z):
    return jax.lax.complex(jax.lax.psum(z.real, AXIS), jax.lax.psum(z.imag, AXIS))
  return jax.lax.psum(z, AXIS)


def _each(f: Callable, *trees: Any) -> Any:
  """Maps over arrays, but leaves the cotangents of integers, which are nothing, as they are."""
  return jax.tree.map(lambda z, *more: z if z.dtype == jax.dtypes.float0 else f(z, *more), *trees)


def _where(mask: Array, z: Array, other: Array) -> Array:
  """Returns `jnp.where` for a mask that has the first axes of z, or none."""
  return jnp.where(jax.lax.expand_dims(mask, range(mask.ndim, z.ndim)), z, other)
