"""The smallest model and task the training code can work with: nothing here depends on the rest of the project."""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from hybrids.head.cross_entropy import cross_entropy
from layers.dense import Dense
from layers.param import param


class Model(nn.Module):
  """An embedding, h_t = 0.5 h_{t-1} + x_t, and a read-out; its parameters lie on every axis of the mesh."""

  vocab: int = 8
  width: int = 8
  inner: int = 8
  dropout: float = 0.0
  STATE = "fixed"

  def setup(self):
    embedding = nn.with_logical_partitioning(nn.initializers.normal(1.0), ("vocab", "embed"))
    self.embedding = self.param("embedding", embedding, (self.vocab, self.width))
    self.log_rate = param(self, "log_rate", nn.initializers.zeros, (self.inner,), (None,), slow=True)
    self.up = Dense(self.inner, use_bias=True, axes=("embed", "inner"))
    self.down = Dense(self.vocab, axes=("inner", "vocab"))
    self.drop = nn.Dropout(self.dropout)

  @nn.nowrap
  def init_state(self, batch, max_len):
    return jnp.zeros((batch, self.inner))

  @nn.nowrap
  def example(self, batch, length):
    shape = lambda dtype: jax.ShapeDtypeStruct((batch, length), dtype)
    return {"inputs": shape(jnp.int32), "targets": shape(jnp.int32), "weights": shape(jnp.float32)}

  def loss(self, batch):
    return self.resume_loss(batch, self.init_state(len(batch["inputs"]), 0))[0]

  def resume_loss(self, batch, state):
    masks = {name: batch[name] for name in ("reset", "lengths") if name in batch}
    logits, state = self.prefill(batch["inputs"], state, **masks)
    return cross_entropy(logits, batch["targets"], batch["weights"]), state

  def __call__(self, inputs, *, reset=None, lengths=None):
    return self.prefill(inputs, self.init_state(len(inputs), 0), reset=reset, lengths=lengths)[0]

  def prefill(self, inputs, state, *, reset=None, lengths=None):
    x = jnp.tanh(self.up(self.embedding[inputs])) * jnp.exp(self.log_rate)
    x = self.drop(x, deterministic=not self.has_rng("dropout"))
    reset = jnp.zeros(inputs.shape, bool) if reset is None else reset
    alive = (
      jnp.arange(inputs.shape[1]) < (jnp.full(len(inputs), inputs.shape[1]) if lengths is None else lengths)[:, None]
    )

    def step(h, now):
      x, reset, alive = now
      h = jnp.where(alive[:, None], 0.5 * jnp.where(reset[:, None], 0, h) + x, h)
      return h, h

    state, y = jax.lax.scan(step, state, jax.tree.map(lambda a: a.swapaxes(0, 1), (x, reset, alive)))
    return self.down(y.swapaxes(0, 1)), state


@dataclasses.dataclass(frozen=True)
class Task:
  """Tokens whose next token is the sum of the last two, in documents of five tokens."""

  batch: int = 8
  length: int = 6
  stateful: bool = False
  rows: int = 11  # of the evaluation set: the last batch is not full
  head: str = "lm"
  loss: str = "cross_entropy"
  metrics: tuple = ("accuracy", "bits_per_token")
  vocab: int = 8
  features: None = None
  classes: None = None

  def make(self, seed, batch=None):
    rng = np.random.default_rng(seed)
    tokens = rng.integers(0, self.vocab, (batch or self.batch, self.length)).astype(np.int32)
    targets = (tokens + np.roll(tokens, 1, 1)) % self.vocab
    weights = rng.integers(0, 3, tokens.shape).astype(np.float32)
    reset = np.broadcast_to(np.arange(self.length) % 5 == 0, tokens.shape)
    return {"inputs": tokens, "targets": targets.astype(np.int32), "weights": weights, "reset": reset}

  def train(self, process_index=0, process_count=1):
    return (self.make(i) for i in range(10**9))

  def eval_sets(self, process_index=0, process_count=1):
    everything = self.make(123, self.rows)

    def run():
      for first in range(0, self.rows, self.batch):
        yield {key: value[first : first + self.batch] for key, value in everything.items()}

    return {"valid": run}
