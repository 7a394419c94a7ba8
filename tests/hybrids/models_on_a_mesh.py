"""Models whose tokens lie on eight devices, against one: the loss and all its gradients, and what a device holds.

Run in a process of its own by test_sharding.py, with a length and names of MODELS:

  python -m tests.hybrids.models_on_a_mesh 65536 mamba hybrid
"""

import sys
import types

import flax.linen as nn
import jax
import numpy as np
from jax.sharding import NamedSharding

from hybrids.model import build_model
from hybrids.objective import measure
from training import platform, sharding

WIDTH = 16
MODELS = {
  "mamba": ("m", dict(m=dict(name="mamba", state=4))),
  "mamba2": ("m", dict(m=dict(name="mamba2", state=4, head_size=4))),
  "s5": ("m", dict(m=dict(name="s5", state=8))),
  "lru": ("m", dict(m=dict(name="lru", state=8))),
  "s4d": ("m", dict(m=dict(name="s4d", state=8))),
  "gla": ("m", dict(m=dict(name="gla", heads=2))),
  "gated_delta": ("m", dict(m=dict(name="gated_delta_net", heads=2, head_size=4))),
  "lstm": ("m", dict(m=dict(name="lstm"))),
  "hybrid": (
    "m-l-",
    {
      "m": dict(name="mamba2", state=4, head_size=4),
      "l": dict(name="local", heads=8, window=32, position="none"),
      "-": dict(name="mlp"),
    },
  ),
}


def compare(name, length):
  """Holds loss and gradients to those of one device, and prints the memory of both."""
  pattern, letters = MODELS[name]
  task = types.SimpleNamespace(head="lm", vocab=16, features=None, classes=None, length=length)
  body = dict(name="stack", pattern=pattern, depth=len(pattern), letters=letters, remat="full")
  model = build_model(task, width=WIDTH, body=body, head=dict(name="lm"))
  rng = np.random.default_rng(0)
  tokens = rng.integers(0, 16, (1, length + 1)).astype(np.int32)
  batch = dict(inputs=tokens[:, :-1], targets=tokens[:, 1:], weights=np.ones((1, length), np.float32))
  # so that a part which starts at zero hides nothing, and no spectrum grows
  params = jax.tree.map(
    lambda z: z + 0.1 * rng.standard_normal(z.shape, np.float32),
    nn.meta.unbox(jax.jit(model.init)(jax.random.key(0), batch["inputs"][:, :2]))["params"],
  )
  loss = jax.value_and_grad(lambda params, batch: measure(model, {"params": params}, batch)[0])

  def run(place):
    given = params, jax.tree.map(place, batch)
    program = jax.jit(loss).lower(*given).compile()
    return jax.device_get(program(*given)), program.memory_analysis().temp_size_in_bytes

  want, whole = run(lambda z: z)
  mesh = sharding.make_mesh(data=1, sequence=-1)
  with sharding.active(mesh):
    by_time = NamedSharding(mesh, jax.P(None, "sequence"))
    params = jax.device_put(params, NamedSharding(mesh, jax.P()))
    got, part = run(lambda z: jax.device_put(z, by_time))
  worst = 0.0
  for (path, a), b in zip(jax.tree_util.tree_leaves_with_path(want), jax.tree.leaves(got)):
    error = np.abs(a - b).max() / max(np.abs(a).max(), 1e-6)
    worst = max(worst, error)
    assert error < 2e-3, f"{name} {jax.tree_util.keystr(path)}: {error:.1e} of the largest entry"
  print(
    f"{name} {length}: loss {want[0]:.6f}, off by {worst:.1e} at most; temporary MB {whole / 1e6:.1f} whole, "
    f"{part / 1e6:.1f} a device, {part / whole:.3f} of it",
    flush=True,
  )


if __name__ == "__main__":
  platform.prepare(8)
  for argument in sys.argv[2:]:
    compare(argument, int(sys.argv[1]))
