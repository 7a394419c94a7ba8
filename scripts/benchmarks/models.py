"""A Mamba language model's training step (loss, gradients, AdamW), beside `transformers` and `mambapy`."""

import functools

import jax
import jax.numpy as jnp
import optax
from jax.sharding import NamedSharding, PartitionSpec

from hybrids.model import Model
from hybrids.objective import measure
from scripts.benchmarks.case import Case, Missing, Timed, compiled
from scripts.peers import hugging_face
from scripts.peers.own_process import own_process
from training import sharding

SIZES = {"width": 256, "depth": 4, "vocab": 256}


def cases() -> list[Case]:
  """Two lengths, beside the peers."""
  rows = []
  for length in (512, 2048):
    group = f"Mamba training step, B4 L{length} width 256, 4 layers, float32"
    shape = {"batch": 4, "length": length}
    rows += [
      Case(group, "ours, batch over 2 devices", functools.partial(train_step, devices=2, **SIZES, **shape)),
      Case(group, "ours, on 1 device", functools.partial(train_step, devices=1, **SIZES, **shape)),
      *peers(group, **SIZES, **shape),
    ]
  return rows


def peers(group: str, **sizes: int) -> list[Case]:
  """The same step elsewhere."""
  own = lambda module: functools.partial(own_process, f"scripts.peers.{module}:train_step", **sizes)
  return [
    Case(group, "transformers, use_mambapy", own("hugging_face")),
    Case(group, "mambapy", own("mamba_py")),
    Case(group, "transformers, with our settings", functools.partial(hugging_face.train_step, **sizes)),
  ]


def language_model(*, width: int, depth: int, vocab: int) -> Model:
  body = {"name": "stack", "pattern": "m", "depth": depth, "letters": {"m": {"name": "mamba"}}, "unroll": depth}
  return Model(vocab=vocab, width=width, body=body)


def train_step(*, devices: int, width: int, depth: int, vocab: int, batch: int, length: int) -> Timed:
  """Loss, gradients and AdamW's update of random tokens, the batch spread over virtual CPU devices as in training."""
  model = language_model(width=width, depth=depth, vocab=vocab)
  tokens = jax.random.randint(jax.random.key(0), (batch, length), 0, vocab)
  params = jax.jit(model.init)(jax.random.key(1), tokens)
  tx = optax.adamw(1e-3)

  def loss(params, tokens):
    weights = jnp.ones(tokens.shape).at[:, -1].set(0)
    batch = {"inputs": tokens, "targets": jnp.roll(tokens, -1, axis=1), "weights": weights}
    return measure(model, params, batch)[0]

  def step(params, opt, tokens):
    value, grads = jax.value_and_grad(loss)(params, tokens)
    updates, opt = tx.update(grads, opt, params)
    return optax.apply_updates(params, updates), opt, value

  if jax.device_count() < devices:
    raise Missing(f"needs --devices {devices}")
  mesh = sharding.make_mesh(data=devices, devices=jax.devices()[:devices])
  with sharding.active(mesh):
    tokens = jax.device_put(tokens, NamedSharding(mesh, PartitionSpec("data")))
    params = jax.device_put(params, NamedSharding(mesh, PartitionSpec()))
    timed = compiled(step, params, jax.jit(tx.init)(params), tokens)
  return timed._replace(per_call=batch * length, unit="tokens")
