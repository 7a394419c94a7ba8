"""Our numbers beside recorded ones (scripts/golden): to 1e-5 of the largest entry, in single precision."""

import jax
import jax.numpy as jnp
import numpy as np

from scripts.golden.recipe import FOLDER

# float32 where terms cancel: Mamba-2's dt_bias is off by 7e-6 as defined and by 1.4e-5 in C++
TOLERANCE = 2e-5


def read(name, part=""):
  """The entries `in`, `grad` and `out` of one recording, and its weights."""
  entries = entries_of(name, part)
  pick = lambda kind: {key.removeprefix(kind): value for key, value in entries.items() if key.startswith(kind)}
  return pick("in/"), pick("grad/"), list(pick("out/").values()), entries["weights"]


def entries_of(name, part=""):
  """All entries of one recording whose names start with `part`, without it."""
  with np.load(FOLDER / f"{name}.npz", allow_pickle=False) as file:
    return {key.removeprefix(part): file[key] for key in file.files if key.startswith(part) and key != "about"}


def check(run, given, gradients, outputs, weights):
  """`run(given)` returns the outputs; compares them and the gradients of the first one's sum with `weights`."""
  assert gradients.keys() == given.keys(), "theirs does not depend on all it is given"

  @jax.jit
  def both(given):
    def loss(given):
      out = run(given)
      return jnp.sum(weights * out[0]), out

    (_, out), grads = jax.value_and_grad(loss, has_aux=True)(given)
    return out, grads

  out, grads = both(given)
  assert len(out) == len(outputs)
  for i, (got, want) in enumerate(zip(out, outputs)):
    near(got, want, f"output {i}")
  for name, want in gradients.items():
    near(grads[name], want, f"gradient of {name}")


def same(mixer, params, name, part="", *, buffers=None):
  """Compares a mixer on x with one recording; `params` makes our parameters of theirs."""
  variables = lambda p: {"params": params(p), "buffers": buffers or {}}
  check(lambda p: (mixer.apply(variables(p), p["x"]),), *read(name, part))


def dense(p, name):
  """Our kernel, and bias if there is one, of a linear layer's."""
  return {"kernel": p[f"{name}.weight"].T} | ({"bias": p[f"{name}.bias"]} if f"{name}.bias" in p else {})


def conv(p, name):
  """Our kernel, and bias if there is one, of a depthwise convolution's."""
  return {"kernel": p[f"{name}.weight"][:, 0].T} | ({"bias": p[f"{name}.bias"]} if f"{name}.bias" in p else {})


def near(got, want, what):
  """Differs by at most TOLERANCE of the largest entry of `want`."""
  assert got.shape == want.shape, f"{what}: {got.shape}, recorded {want.shape}"
  error = np.abs(got - want).max() / np.abs(want).max()
  assert error <= TOLERANCE, f"{what} is off by {error:.2g} of the largest entry"
