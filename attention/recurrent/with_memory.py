"""The base classes of the mixers that put Titans' memory beside attention.

Behrouz, Zhong & Mirrokni 2025, arXiv:2501.00663, sec. 4.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import jax
from flax.core import FrozenDict
from jaxtyping import Array, Float

from attention import cache
from attention.recurrent import titans
from attention.recurrent.titans import Titans
from attention.softmax import Attention
from layers import RMSNorm
from layers.fields import check_fields
from layers.mixer import Mixer
from mistake import Mistake


class State(NamedTuple):
  """The states of the memory and of the attention."""

  memory: titans.State
  attention: cache.Cache


class Gate(nn.Module):
  """Computes norm(y) sigmoid(norm(m)), each norm with a scale of its own     sec. 4.2

  Departs: of their nonlinearity sigma the paper says no more than that; this one is a gate.
  """

  eps: float

  @nn.compact
  def __call__(self, y: Float[Array, "b t d"], m: Float[Array, "b t d"]) -> Float[Array, "b t d"]:
    """Gates y by m."""
    norm = lambda name: RMSNorm(eps=self.eps, name=name)
    return norm("y_norm")(y) * jax.nn.sigmoid(norm("m_norm")(m))


class WithMemory(Mixer):
  """A mixer of a memory and of attention that also sees persistent tokens; the subclass has `mix`.

  Attributes:
    heads: of the attention; as in `Attention`, if not given.
    persistent: N_p, the number of learned tokens.
    position: of the attention, "rope" or "none".
    memory: fields of `Titans`.
  """

  width: int
  heads: int | None = None
  persistent: int = 4
  position: str = "rope"
  memory: Mapping[str, Any] = FrozenDict()
  norm_eps: float = 1e-5

  STATE = "window"

  def __post_init__(self):
    self.memory = FrozenDict(self.memory)
    name = type(self).__name__
    check_fields(Titans, {"width": self.width, **self.memory}, f"{name}: memory")
    if self.memory.get("width", self.width) != self.width:
      raise Mistake(f"{name}: memory sets width={self.memory['width']} in a mixer of width={self.width}; leave it out")
    super().__post_init__()

  @nn.nowrap
  def check(self) -> None:
    self._attention(parent=None)
    self._titans(parent=None)

  def setup(self):
    self.attention, self.titans = self._attention(), self._titans()

  @nn.nowrap
  def init_state(self, batch: int, max_len: int) -> Any:
    """Returns the states of both parts."""
    memory, attention = self._titans(parent=None), self._attention(parent=None)
    return State(memory.init_state(batch, max_len), attention.init_state(batch, max_len))

  @nn.nowrap
  def _attention(self, **kwargs) -> Attention:
    kwargs |= dict(heads=self.heads, position=self.position, persistent=self.persistent)
    return Attention(self.width, **kwargs)

  @nn.nowrap
  def _titans(self, **kwargs) -> Titans:
    return Titans(**{"width": self.width, **self.memory}, **kwargs)


class WithWindow(WithMemory):
  """A mixer of a memory and of attention over a window.

  Attributes:
    window: tokens that it sees, the current one included.
  """

  window: int = 256

  @nn.nowrap
  def _attention(self, **kwargs) -> Attention:
    return super()._attention(window=self.window, **kwargs)
