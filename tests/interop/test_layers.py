"""Layers of other code bases: equal outputs by NumPy renderings of their forward; files that are not read."""

import numpy as np
import pytest
from flax import serialization

from hybrids.mixer import build
from interop import layers
from mistake import Mistake
from ssm.lti import dense
from tests.contract.case import jit
from tests.golden.compare import read

RNG = np.random.default_rng(0)
D, N, T = 3, 4, 11


def drawn(*shape):
  return RNG.normal(size=shape).astype(np.float32)


def s5_tree(both=False):
  tree = {"Lambda_re": -np.abs(drawn(N)) - 0.1, "Lambda_im": drawn(N), "B": drawn(N, D, 2), "D": drawn(D)}
  tree |= {"C1": drawn(D, N, 2), "C2": drawn(D, N, 2)} if both else {"C": drawn(D, N, 2)}
  return tree | {"log_step": drawn(N, 1) - 2}


def s5_forward(p, x, both):
  """The authors' apply_ssm with zero-order hold and conjugate pairs, one step at a time."""
  lam, dt = p["Lambda_re"] + 1j * p["Lambda_im"], np.exp(p["log_step"][:, 0])
  B, parts = p["B"] @ [1, 1j], [p[name] @ [1, 1j] for name in (("C1", "C2") if both else ("C",))]
  A = np.exp(lam * dt)
  Bx = x @ (((A - 1) / lam)[:, None] * B).T
  ways = []
  for order in (slice(None), slice(None, None, -1))[: len(parts)]:
    h, rows = np.zeros(N, complex), []
    for u in Bx[order]:
      h = A * h + u
      rows.append(h)
    ways.append(np.array(rows)[order])
  return 2 * sum((h @ C.T).real for h, C in zip(ways, parts)) + p["D"] * x


def gelu(x):
  return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))


@pytest.mark.parametrize("activation, both", [("none", False), ("full_glu", True), ("half_glu2", False)])
def test_a_layer_of_s5_is_ours(activation, both):
  tree, x = s5_tree(both), drawn(T, D)
  y = s5_forward(tree, x.astype(np.float64), both)
  if activation != "none":
    tree = {"seq": tree, "norm": {"scale": drawn(D)}}
    names = ("out1", "out2") if activation == "full_glu" else ("out2",)
    tree |= {name: {"kernel": drawn(D, D), "bias": drawn(D)} for name in names}
    map_by = lambda name, x: x @ tree[name]["kernel"] + tree[name]["bias"]
    g = gelu(y)
    y = (map_by("out1", g) if activation == "full_glu" else y) / (1 + np.exp(-map_by("out2", g)))
  fields, params = layers.s5(tree, activation=activation)
  assert fields == dict(state=2 * N, bidirectional=both, activation=activation)
  found = jit(build("s5", width=D, **fields).apply)({"params": params}, x[None])[0]
  np.testing.assert_allclose(found, y, rtol=1e-4, atol=1e-5)


def annotated_tree():
  complexes = lambda: (drawn(N, D) + 1j * drawn(N, D)).astype(np.complex64) * 0.7
  # a real part above -1e-4 is clipped there
  real = -np.abs(drawn(N, D)) - 0.2
  real[0, 0] = 0.3
  tree = {"Lambda_re": real, "Lambda_im": drawn(N, D), "P": complexes(), "B": complexes(), "C": drawn(N, D, 2)}
  return tree | {"D": drawn(1, D), "log_step": drawn(1, D) * 0.3 - 1}


def annotated_kernel(p, channel, l):
  """The kernel at the roots of unity, with the Cauchy sums and Woodbury's formula of the blog."""
  p = {name: np.asarray(x)[:, channel] for name, x in p.items()}
  lam = np.minimum(p["Lambda_re"], -1e-4) + 1j * p["Lambda_im"].astype(np.float64)
  P, B, C, step = p["P"], p["B"], p["C"] @ [1, 1j], np.exp(np.float64(p["log_step"][0]))
  w = np.exp(-2j * np.pi * np.arange(l) / l)
  g, c = 2 / step * (1 - w) / (1 + w), 2 / (1 + w)
  cauchy = lambda v: (v / (g[:, None] - lam)).sum(1)
  sums = [cauchy(v) for v in (C.conj() * B, C.conj() * P, P.conj() * B, P.conj() * P)]
  return np.fft.ifft(c * (sums[0] - sums[1] / (1 + sums[3]) * sums[2])).real


def test_a_layer_of_annotated_s4_is_ours_for_any_length():
  tree, l = annotated_tree(), T
  fields, params = layers.annotated_s4(tree, l_max=l)
  mixer = build("lssl", width=D, **fields)
  recurrence = mixer.apply({"params": params}, method="_recurrence")
  taps = np.asarray(jit(lambda recurrence: dense.taps(recurrence, l))(recurrence))
  for channel in range(D):
    expected = annotated_kernel(tree, channel, l)
    expected[0] += tree["D"][0, channel]
    np.testing.assert_allclose(taps[channel], expected, rtol=1e-3, atol=1e-4 * np.abs(expected).max())


@pytest.mark.parametrize("measure", ["legs", "fout"])
def test_a_cut_c_of_s4_becomes_c(measure):
  """The recorded kernel of the authors' code, whose C is stored cut, beside its full C."""
  given, _, outputs, _ = read("s4", f"{measure}/")
  tree = {name.removeprefix("kernel."): x for name, x in given.items() if name.startswith("kernel.")} | {
    "D": given["D"]
  }
  fields, full = layers.s4(tree, l_kernel=None)
  assert fields["state"] == 2 * given["kernel.C"].shape[-2]
  _, params = layers.s4(tree | {"C": outputs[-1]}, l_kernel=given["x"].shape[-1])
  for name in ("C_re", "C_im"):
    np.testing.assert_allclose(params[name], full[name], rtol=0, atol=2e-4 * np.abs(full[name]).max())


def test_trees_are_read_from_msgpack_and_npz_and_pickles_are_not(tmp_path):
  tree = {"params": {"a": drawn(2, 3), "b": {"c": (drawn(2) + 1j).astype(np.complex64)}}}
  (tmp_path / "a.msgpack").write_bytes(serialization.msgpack_serialize(tree))
  np.savez(tmp_path / "a.npz", **{"params/a": tree["params"]["a"], "params/b/c": tree["params"]["b"]["c"]})
  for name in ("a.msgpack", "a.npz"):
    found = layers.read(tmp_path / name)
    np.testing.assert_array_equal(found["params"]["a"], tree["params"]["a"])
    np.testing.assert_array_equal(found["params"]["b"]["c"], tree["params"]["b"]["c"])
  np.savez(tmp_path / "objects.npz", x=np.array([{}], object))
  (tmp_path / "pickle.msgpack").write_bytes(b"\x80\x04\x95" + bytes(20))
  for name in ("objects.npz", "pickle.msgpack", "nothing.npz"):
    with pytest.raises(Mistake, match=f"{name} cannot be read"):
      layers.read(tmp_path / name)


def test_what_is_no_such_layer_is_named():
  with pytest.raises(Mistake, match="a layer of S5 lacks B; it has"):
    layers.s5({name: x for name, x in s5_tree().items() if name != "B"})
  with pytest.raises(Mistake, match="a sequence layer of S5 has out2, which are not known"):
    layers.s5({"seq": s5_tree(), "out2": {}})
  with pytest.raises(Mistake, match=r"C of shape \(3, 5, 2\)"):
    layers.s5(s5_tree() | {"C": drawn(D, 5, 2)})
  with pytest.raises(Mistake, match="annotated S4 has Q"):
    layers.annotated_s4(annotated_tree() | {"Q": 1}, l_max=4)
