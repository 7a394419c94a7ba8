"""Inputs of bfloat16 on accelerators: products have bfloat16 factors and float32 sums; float32 inputs stay exact."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kernels import dispatch, inputs
from kernels.attention import attention
from kernels.delta_rule import xla as delta_rule_xla
from tests.kernels.compare import assert_close, values_and_gradients
from tests.kernels.ops import OPS, Op

NAMES = ["ssd", "gated_linear_attention", "gated_linear_attention, bonus", "delta_rule", "delta_rule, gated"]
NAMES += ["delta_rule, general", "lti"]
# Decays and states; and the values, which often come from a step size in float32.
WIDE = ("log_a", "a_complex", "S", "x", "v")
DOT = re.compile(r"dot_general.*?: \(tensor<([^>]*)>, tensor<([^>]*)>\) -> tensor<([^>]*)>")


def _attended(q, k, values, impl="xla"):
  return attention(q, k, values, impl=impl), q[:, 0]


ALL = {
  **{name: OPS[name] for name in NAMES},
  "attention": Op(_attended, {}, dict(q="b t h k", k="b t h k", values="b t h k"), "q"),
}


def narrowed(op, t):
  """Arrays whose entries have 8 bits, tokens in bfloat16."""
  round_ = lambda z: z if np.iscomplexobj(z) else jnp.asarray(z).astype(jnp.bfloat16)
  arrays = {name: round_(z) for name, z in op.draw(t).items()}
  return {name: z.astype("float32") if name in WIDE and not np.iscomplexobj(z) else z for name, z in arrays.items()}


def products(run, arrays, platform):
  """The types of the two factors and of the sums, of all products of forward and backward pass as lowered."""

  def gradients(*z):
    y, pull = jax.vjp(lambda *z: run(*z)[0], *z)
    return pull(jnp.ones_like(y))

  text = jax.jit(gradients).trace(*arrays.values()).lower(lowering_platforms=(platform,)).as_text()
  return [tuple(found) for found in DOT.findall(text)]


@pytest.mark.parametrize("platform, target", [("gpu", "cuda"), ("tpu", "tpu")])
@pytest.mark.parametrize("name", ALL)
def test_factors_are_narrow_and_sums_wide(name, platform, target, monkeypatch):
  monkeypatch.setattr(dispatch, "platform", lambda: platform)
  # The solve stays in float32, and so do sums of log decays, which are products with a triangular matrix of ones.
  monkeypatch.setattr(delta_rule_xla, "_solve", lambda lower, *right: list(right))
  op = ALL[name]
  found = products(op.run, narrowed(op, 64), target)
  narrow = [dot for dot in found if dot[0].endswith("bf16")]
  assert len(narrow) >= 5, found
  for left, right, out in narrow:
    assert (right[-4:], out[-4:]) == ("bf16", "xf32"), (left, right, out)
  for left, right, out in set(found) - set(narrow):
    sizes = [shape.split("x")[:-1] for shape in (left, right)]
    assert any(len(shape) == 2 and shape[0] == shape[1] for shape in sizes), (left, right, out)


@pytest.mark.parametrize("name", ALL)
def test_float32_stays_float32(name, monkeypatch):
  monkeypatch.setattr(dispatch, "platform", lambda: "gpu")
  op = ALL[name]
  arrays = {key: jnp.asarray(z) for key, z in op.draw(64).items()}
  text = jax.jit(op.run).trace(*arrays.values()).lower(lowering_platforms=("cuda",)).as_text()
  dots = [line for line in text.splitlines() if "dot_general" in line]
  assert dots
  for line in dots:
    assert "bf16" not in line, line
    assert "HIGHEST" in line, line


@pytest.mark.parametrize("name", [pytest.param(n, marks=[pytest.mark.slow] * (n != "ssd")) for n in ALL])
def test_errors_are_those_of_8_bits(name, monkeypatch):
  """Against float64 of the same numbers; the arithmetic of an accelerator, done on this machine."""
  op = ALL[name]
  arrays = narrowed(op, 100)
  with jax.enable_x64(True):
    wide = tuple(jnp.asarray(z, complex if np.iscomplexobj(z) else float) for z in arrays.values())
    want = values_and_gradients(functools.partial(op.run, impl="reference"), wide)
  monkeypatch.setattr(dispatch, "platform", lambda: "gpu")

  def exact(spec, x, y, dtype):
    assert x.dtype == y.dtype == jnp.bfloat16
    return jnp.einsum(spec, x.astype(dtype), y.astype(dtype))

  monkeypatch.setattr(inputs, "product", exact)
  got = values_and_gradients(op.run, tuple(arrays.values()))
  as_wide = lambda tree, like: jax.tree.map(lambda z, w: np.asarray(z).astype(w.dtype), tree, like)
  assert_close(as_wide(got, want), want, 0.03)
