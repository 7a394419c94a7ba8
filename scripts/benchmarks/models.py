"""Training steps of language models (loss, gradients, AdamW), beside `transformers` and for Mamba `mambapy`."""

import functools

import jax
import jax.numpy as jnp
import optax
from jax.sharding import NamedSharding, PartitionSpec

from hybrids.model import Model
from hybrids.objective import measure
from scripts.benchmarks import small
from scripts.benchmarks.case import Case, Missing, Timed, compiled
from scripts.peers import hugging_face
from scripts.peers.own_process import own_process
from training import sharding

LENGTHS = {"Mamba": (512, 2048)}


def cases() -> list[Case]:
  """Returns every model of `small.py` on rows of 512 tokens, Mamba on longer ones, too; each beside its peers."""
  rows = []
  for kind in small.MODELS:
    for length in LENGTHS.get(kind, (512,)):
      group = f"{kind} training step, B4 L{length} width {small.WIDTH}, 4 layers, float32"
      shape = {"batch": 4, "length": length}
      rows += [
        Case(group, "ours, batch over 2 devices", functools.partial(train_step, kind=kind, devices=2, **shape)),
        Case(group, "ours, on 1 device", functools.partial(train_step, kind=kind, devices=1, **shape)),
        *peers(group, kind, **shape),
      ]
  return rows


def peers(group: str, kind: str, **shape: int) -> list[Case]:
  """Returns the same step elsewhere."""
  theirs = functools.partial(own_process, "scripts.peers.hugging_face:train_step", kind=kind, **shape)
  if kind != "Mamba":
    return [Case(group, "transformers", theirs)]
  sizes = dict(width=small.WIDTH, depth=small.SIZES["depth"], vocab=small.VOCAB)
  return [
    Case(group, "transformers, use_mambapy", theirs),
    Case(group, "mambapy", functools.partial(own_process, "scripts.peers.mamba_py:train_step", **sizes, **shape)),
    Case(group, "transformers, with our settings", functools.partial(hugging_face.train_step, kind=kind, **shape)),
  ]


def train_step(*, kind: str, devices: int, batch: int, length: int) -> Timed:
  """Times a step of a model of `small.py`, the batch spread over virtual CPU devices as in training."""
  return step_of(small.build(small.MODELS[kind]), devices, batch, length)


def step_of(model: Model, devices: int, batch: int, length: int) -> Timed:
  """Times loss, gradients and AdamW's update of random tokens.

  Raises:
    Missing: there are not so many devices.
  """
  tokens = jax.random.randint(jax.random.key(0), (batch, length), 0, model.vocab or small.VOCAB)
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
