"""Agreement with numbers of the official implementations (scripts/golden/record.py), to 1e-5 of the largest entry."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hybrids.mixer import build
from kernels.selective_scan import selective_scan
from kernels.ssd import ssd
from scripts.golden import record
from ssm.lti import diagonal, discretization

TOLERANCE = 1e-5


def read(name, part=""):
  """The entries `in`, `grad` and `out` of one recording, and its weights."""
  with np.load(record.FOLDER / f"{name}.npz", allow_pickle=False) as file:
    names = [key for key in file.files if key.startswith(part) and key != "about"]
    entries = {key.removeprefix(part): file[key] for key in names}
  pick = lambda kind: {key.removeprefix(kind): value for key, value in entries.items() if key.startswith(kind)}
  return pick("in/"), pick("grad/"), list(pick("out/").values()), entries["weights"]


def check(run, given, gradients, outputs, weights):
  """`run(given)` returns the outputs; compares them and the gradients of the first one's sum with `weights`."""

  @jax.jit
  def both(given):
    (_, out), grads = jax.value_and_grad(lambda p: (jnp.sum(weights * run(p)[0]), run(p)), has_aux=True)(given)
    return out, grads

  out, grads = both(given)
  assert len(out) == len(outputs)
  pairs = [*zip(map(str, range(len(out))), out, outputs), *((key, grads[key], gradients[key]) for key in gradients)]
  for name, got, want in pairs:
    assert np.abs(got - want).max() <= TOLERANCE * np.abs(want).max(), name


@pytest.mark.parametrize("name", sorted(record.NUMBERS))
def test_recordings_say_where_they_come_from(name):
  with np.load(record.FOLDER / f"{name}.npz", allow_pickle=False) as file:
    about = json.loads(str(file["about"]))
  recipe = record.NUMBERS[name]
  assert (about["repository"], about["file"], tuple(about["executed"])) == recipe[:3]
  assert len(about["commit"]) == 40


@pytest.mark.parametrize("kind, impl", [("real", "xla"), ("real", "associative"), ("complex", "associative")])
def test_selective_scan_is_mambas(kind, impl):
  given, *rest = read("selective_scan", f"{kind}/")

  def by_token(z):
    """b g n t -> b t g n; complex numbers come as pairs along time."""
    if kind == "complex":
      z = z.reshape(*z.shape[:-1], -1, 2)
      z = jax.lax.complex(z[..., 0], z[..., 1])
    return jnp.moveaxis(z, -1, 1)

  def run(p):
    x, dt = p["x"].swapaxes(1, 2), p["dt"].swapaxes(1, 2)
    h = jnp.zeros((x.shape[0], *p["A"].shape), p["A"].dtype)
    # theirs puts the factor for conjugate pairs into the op
    C = by_token(p["C"]) * (2 if kind == "complex" else 1)
    y, last = selective_scan(x, dt, p["A"], by_token(p["B"]), C, h, impl=impl)
    return y.swapaxes(1, 2), last

  check(run, given, *rest)


def test_ssd_is_mamba_2s():
  given, *rest = read("ssd")

  def run(p):
    y, last = ssd(p["q"], p["k"], p["v"], p["log_a"], p["S"][:, 0].swapaxes(2, 3))
    return y, last.swapaxes(2, 3)

  check(run, given, *rest)


def test_s4d_has_the_kernel_of_the_authors():
  given, gradients, outputs, weights = read("s4d_kernel")

  def run(p):
    A = jax.lax.complex(-jnp.exp(p["log_A_real"]), p["A_imag"])
    log_A, B = discretization.zoh(jnp.exp(p["log_dt"])[:, None], A)
    C = 2 * jax.lax.complex(p["C"][..., 0], p["C"][..., 1])
    return (diagonal.taps(log_A, C * B, jnp.zeros(len(p["log_dt"])), outputs[0].shape[1]),)

  check(run, given, gradients, outputs, weights)


@pytest.mark.parametrize("disc", ["zoh", "bilinear"])
def test_s5_is_the_authors(disc):
  given, *rest = read("s5", f"{disc}/")
  n, d = given["B_re"].shape
  mixer = build("s5", width=d, state=2 * n, disc=disc, activation="none")

  def run(p):
    params = {name: value for name, value in p.items() if name != "x"} | {"D": jnp.zeros(d)}
    return (mixer.apply({"params": params}, p["x"][None])[0],)

  check(run, given, *rest)
