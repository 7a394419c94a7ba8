"""Measures a mixer's kernel, eigenvalues and time steps, and which input each output depends on.

Mixers are asked through the methods of their contract; only STEPS and `poles` go by names of their own. What a mixer
does not have is None.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from hybrids.branch import Branch
from kernels import dispatch

# the method whose result holds dt of every token, and how
STEPS: dict[tuple[str, str], Callable[[Any], jax.Array]] = {
  ("Mamba", "_select"): lambda found: jax.nn.softplus(found[0]),
  ("Mamba2", "_project"): lambda found: found[-1],
  # the weights of a token and of the one before add up to dt
  ("Mamba3", "_select"): lambda token: token.now + token.carried,
}
# relative; a float32 convolution of a few hundred tokens is right to about 1e-6
TOLERANCE = 1e-4
# more channels than this are not differentiated one by one
PROBES = 64


class Layer(NamedTuple):
  """One mixer of a model and what it was called with, a single row."""

  number: int  # from 0
  name: str
  mixer: nn.Module
  variables: Mapping[str, Any]
  x: jax.Array  # 1 t d, after the block's norm
  keywords: Mapping[str, Any]  # reset, lengths, side


def layers(model: nn.Module, variables: Mapping[str, Any], row: Mapping[str, Any]) -> list[Layer]:
  """Returns the mixers of a model in order, with what reaches them when it reads a row from an empty state, in float32.

  Args:
    row: `inputs` and, where there are such, `reset`, `lengths` and `side`; one row each.
  """
  # layers one after the other: what reaches a mixer inside of a loop could not be taken out
  plain = model.clone(body={**model.body, "remat": "none"}, dtype="float32")
  modules: list[tuple[int, str, nn.Module]] = []

  @jax.jit
  def read(variables, row):
    calls = []

    def note(call, args, kwargs, context):
      mixer = context.module
      if isinstance(mixer.parent, Branch) and mixer.name == "mixer" and context.method_name == "__call__":
        name = type(mixer).__module__.rpartition(".")[2]
        modules.append((mixer.parent.layer, name, mixer.clone(parent=None, name=None)))
        calls.append((mixer.variables, args[0], dict(kwargs)))
      return call(*args, **kwargs)

    with nn.intercept_methods(note):
      plain.apply(plain.apart(variables), **row)
    return calls

  calls = read(variables, jax.tree.map(jnp.asarray, dict(row)))
  return [Layer(*module, *rest) for module, rest in zip(modules, calls)]


def linear_part(mixer: nn.Module) -> nn.Module:
  """Returns the mixer without what follows its state space, where that is a choice."""
  is_choice = type(mixer).__module__.startswith("ssm.lti.") and hasattr(mixer, "activation")
  return mixer.clone(activation="none") if is_choice else mixer


def kernel(layer: Layer) -> np.ndarray | None:
  """Returns K of y_t = sum_s K_{t-s} x_s, `t out in`, from responses to impulses; None for other mixers.

  Of the linear part. That it is such a convolution is tried on noise.
  """
  if layer.keywords.get("side"):
    return None
  _, t, width = layer.x.shape
  apply = jax.jit(linear_part(layer.mixer).apply)
  responses = apply(layer.variables, jnp.zeros((width, t, width)).at[:, 0].set(jnp.eye(width)))
  K = np.moveaxis(np.asarray(responses, float), 0, -1)
  noise = np.random.default_rng(0).normal(size=(t, width))
  expected = sum(np.pad(noise[: t - lag] @ K[lag].T, ((lag, 0), (0, 0))) for lag in range(t))
  return K if _close(apply(layer.variables, jnp.asarray(noise, jnp.float32)[None])[0], expected) else None


def steps(layer: Layer) -> np.ndarray | None:
  """Returns dt of every token and channel or head, `t e`, as the mixer computes it while it reads; None without one."""

  @jax.jit
  def read(variables, x):
    outputs = []

    def note(call, args, kwargs, context):
      out = call(*args, **kwargs)
      part = STEPS.get((type(context.module).__name__, context.method_name))
      if part:
        outputs.append(part(out)[0])
      return out

    with nn.intercept_methods(note):
      layer.mixer.apply(variables, x, **layer.keywords)
    return outputs

  outputs = read(layer.variables, layer.x)
  # two, of the directions of a wrapper, do not count the same way
  return np.asarray(outputs[0]) if len(outputs) == 1 else None


def poles(layer: Layer) -> np.ndarray | None:
  """Returns lambda, the eigenvalues in continuous time of its parameters, before any dt; None without such."""
  leaves = {name: value for name, value in layer.variables["params"].items() if not isinstance(value, Mapping)}
  p = {name: np.asarray(value, float) for name, value in leaves.items()}
  if "lam_re" in p:
    return p["lam_re"] + 1j * p["lam_im"]
  size = "A_log" if "A_log" in p else "lam_log"
  if size not in p:
    return None
  lam = -np.exp(p[size]) + 1j * p.get(size.replace("log", "im"), np.zeros_like(p[size]))
  if "lam_im_log" in p:
    lam += 1j * np.exp(p["lam_im_log"])
  if "P_re" not in p:
    return lam
  pairs = lambda z: np.concatenate([z, z.conj()], axis=-1)
  P = pairs(p["P_re"] + 1j * p["P_im"])
  return np.linalg.eigvals(pairs(lam)[..., None] * np.eye(P.shape[-1]) - P[..., :, None] * P[..., None, :].conj())


def eigenvalues(layer: Layer, *, tokens: int) -> np.ndarray | None:
  """Returns the step's eigenvalues, `token … n`, at each of the first tokens; None without such a state.

  The step mixes the last axis of the state `h` or `S`; all axes before it are channels. No other field of the state
  depends on it, which is checked, so that its eigenvalues belong to the whole step; those of short convolutions
  and of Mamba-3's rotations are left out. Where a step is not linear, its derivative at the current state is taken.
  """
  if layer.mixer.STATE != "fixed" or layer.keywords.get("side"):
    return None
  state = layer.mixer.init_state(1, layer.x.shape[1])
  field = next(iter(getattr(state, "_fields", ())), None)
  if field not in ("h", "S"):
    return None
  step = jax.jit(lambda x, state: layer.mixer.apply(layer.variables, x, state, method="step")[1])

  @jax.jit
  def push(x, state, tangent):
    def move(h):
      new = step(x, state._replace(**{field: h}))._asdict()
      return new.pop(field), [z for z in jax.tree.leaves(new) if jnp.issubdtype(z.dtype, jnp.inexact)]

    # kernels have no derivative of this kind
    with dispatch.use("reference"):
      return jax.jvp(move, (getattr(state, field),), (tangent,))[1]

  spectra = []
  for t in range(tokens):
    values = _spectrum(lambda tangent: push(layer.x[:, t], state, tangent), getattr(state, field))  # noqa: B023
    if values is None:
      return None
    spectra.append(values[0])
    state = step(layer.x[:, t], state)
  return np.stack(spectra)


def _spectrum(push: Callable[[jax.Array], tuple[jax.Array, list[jax.Array]]], h: jax.Array) -> np.ndarray | None:
  """Returns eigenvalues of a map from h to h and a rest; None where other axes mix or the rest is not 0."""
  draw = np.random.default_rng(0).normal(size=(2, *h.shape))
  probe = jnp.asarray(draw[0] + 1j * draw[1] if jnp.iscomplexobj(h) else draw[0], h.dtype)
  (expected, rest), diagonal = push(probe), push(jnp.ones_like(h))[0]
  if any(np.any(z) for z in rest):
    return None
  if _close(diagonal * probe, expected):
    return np.asarray(diagonal)
  n = h.shape[-1]
  blocks = jnp.stack([push(jnp.zeros_like(h).at[..., i].set(1))[0] for i in range(n)], axis=-1)
  if _close(jnp.einsum("...nm,...m->...n", blocks, probe, precision="highest"), expected):
    return np.linalg.eigvals(np.asarray(blocks))
  return None


def attention(layer: Layer) -> np.ndarray:
  """Returns M_ts = ||dy_t / dx_s||, the Frobenius norm over channels, `t s`: how much output t depends on input s.

  Column s of a mixer that is linear in its input is the output for input s: for an S4D with nothing after it, the
  Toeplitz matrix of its kernel. For other mixers it is the derivative at this row, in which a token counts for what it
  adds and for its effect on other tokens: gates, dt, B and C are differentiated too. Exact up to 64 channels; above, a
  mean over 64 sums of the channels of y with random signs, right to about 10 %.
  """
  _, t, width = layer.x.shape
  exact = width <= PROBES
  signs = np.random.default_rng(0).choice([-1.0, 1.0], size=(PROBES, width)) / PROBES**0.5
  probes = jnp.asarray(np.eye(width) if exact else signs, layer.x.dtype)

  @jax.jit
  def norms(variables, x):
    _, pull = jax.vjp(lambda x: layer.mixer.apply(variables, x, **layer.keywords), x)

    def row(t):
      slopes = jax.vmap(lambda probe: pull(jnp.zeros_like(x).at[0, t].set(probe))[0])(probes)
      return jnp.sqrt(jnp.sum(jnp.square(slopes), axis=(0, 1, 3)))

    return jax.lax.map(row, jnp.arange(t))

  return np.asarray(norms(layer.variables, layer.x))


def _close(got: Any, expected: Any) -> bool:
  scale = float(np.abs(expected).max())
  return float(np.abs(np.asarray(got) - np.asarray(expected)).max()) <= TOLERANCE * scale
