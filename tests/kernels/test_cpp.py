"""Kernels in C++: how they are built, and that they equal the definition."""

import concurrent.futures
import functools
import os
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kernels import cpp, dispatch
from kernels.selective_scan import cpp as kernel
from kernels.selective_scan import selective_scan
from tests import child
from tests.kernels import scans
from tests.kernels.compare import DIGIT, TOLERANCE, assert_close, draw, masks, spoil, values_and_gradients
from tests.refused import refused


def op(*arrays, impl="cpp", **settings):
  return selective_scan(*(jnp.asarray(z) for z in arrays), impl=impl, **settings)


@pytest.fixture
def compiler():
  try:
    cpp._output([*cpp._compiler(), "--version"])
  except cpp.Unavailable as e:
    pytest.skip(str(e))


def arrays(t, e=4, g=1, n=3):
  rng = np.random.default_rng(t)
  x, dt = draw(rng, (2, t, e), "float32"), rng.uniform(0.01, 0.5, (2, t, e)).astype("float32")
  A = -rng.uniform(0.5, 4, (e, n)).astype("float32")
  return x, dt, A, *draw(rng, (2, 2, t, g, n), "float32"), draw(rng, (2, e, n), "float32")


@pytest.mark.parametrize("t", [1, 32, 63, 100])
@pytest.mark.parametrize("e, g, masked", [(4, 1, False), (40, 2, True)])
def test_it_equals_the_reference(library, t, e, g, masked, monkeypatch):
  # parts of channels that vectors do not divide
  monkeypatch.setattr(kernel, "CHANNELS", 7)
  monkeypatch.setattr(os, "cpu_count", lambda: 8)
  given, where = arrays(t, e, g), masks(t) if masked else {}
  want = values_and_gradients(functools.partial(op, impl="reference"), given, **where)
  if masked:
    x, dt, A, B, C, h = given
    x, dt, B, C = (spoil(where["lengths"], z) for z in (x, dt, B, C))
    given = x, dt, A, B, C, h
  assert_close(values_and_gradients(op, given, **where), want, TOLERANCE["float32"])


@pytest.mark.parametrize(
  "t, e, g, masked, narrow, what",
  [
    (33, 40, 2, True, "", "softplus D z"),
    (9, 4, 1, False, "", "softplus D"),
    (9, 4, 1, True, "", "z"),
    (5, 17, 1, False, "x dt z", "softplus D z"),
  ],
)
def test_what_stands_around_it_equals_the_reference(library, t, e, g, masked, narrow, what):
  given, softplus = scans.around(scans.selective(t, e, g, 3), narrow, what)
  where = masks(t) if masked else {}
  run = lambda impl: lambda *z, **where: selective_scan(*z, softplus=softplus, impl=impl, **where)
  want = values_and_gradients(run("reference"), given, **where)
  tolerance = 2 * DIGIT if narrow else TOLERANCE["float32"]
  assert_close(values_and_gradients(run("cpp"), given, **where), want, tolerance)


def test_steps_far_from_zero_are_exact(library):
  """The softplus of small numbers is their exponential, and so is its gradient."""
  x, dt, A, B, C, h = map(jnp.asarray, arrays(8))
  for far in (-20.0, 20.0):
    run = lambda impl: jax.grad(lambda dt: selective_scan(x, dt, A, B, C, h, softplus=True, impl=impl)[0].sum())
    got, want = run("cpp")(dt + far), run("reference")(dt + far)
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-6 * np.abs(want).max())


def test_the_channels_are_cut_into_parts_for_the_cores(monkeypatch):
  monkeypatch.setattr(os, "cpu_count", lambda: 8)
  parts = lambda b, g, e: kernel._parts(np.zeros((b, 1, g, 1)), e)
  assert [parts(1, 1, 1024), parts(3, 1, 1024), parts(2, 2, 1024), parts(8, 1, 1024)] == [8, 3, 2, 1]
  assert [parts(1, 1, 128), parts(1, 1, 16), parts(0, 1, 1024)] == [2, 1, 8]


def test_it_has_chunks_as_long_as_the_source_says():
  assert f"CHUNK = {kernel.CHUNK};" in kernel.SOURCE.read_text()


def test_its_exponential_is_exact_to_the_last_digits(library):
  """With B = 0 and C = 1 the first output is the decay of a state of 1."""
  z = np.concatenate([np.linspace(-87, 20, 4001), np.linspace(-1e-3, 1e-3, 95)]).astype("float32")
  one = np.ones((1, 1, 1, 1), "float32")
  y, _ = op(z[None, None], z[None, None], np.ones((4096, 1), "float32"), 0 * one, one, np.ones((1, 4096, 1), "float32"))
  # the argument, rounded when it is turned to base 2, moves the result by half a last digit of itself
  off = np.abs(np.asarray(y)[0, 0] / np.exp(z.astype("float64")) - 1)
  assert (off <= 2.0**-22 + np.abs(z) * 2.0**-23).all(), off.max()


def test_states_that_fade_become_nothing(library):
  x, dt, A, B, C, h = arrays(64)
  y, last = op(0 * x, dt, 1e4 * A, B, C, h)
  assert np.abs(y).max() < 1e-36
  assert np.abs(last).max() < 1e-36


def test_what_is_no_number_stays_in_its_row_and_channel(library):
  for number in (0, 1):
    given = [np.array(z) for z in arrays(8)]
    given[number][1, 5, 2] = np.nan
    y, last = (np.asarray(z) for z in op(*given))
    bad = np.isnan(y)
    assert bad[1, 5:, 2].all()
    assert bad.sum() == 3
    assert np.isnan(last[1, 2]).all()
    assert np.isnan(last).sum() == last.shape[-1]


def test_vmap_runs_one_after_the_other(library):
  given = arrays(9)
  stacked = [np.stack([z, 2 * z]) for z in given]
  got = jax.vmap(op)(*stacked)
  for i in range(2):
    assert_close([z[i] for z in got], list(op(*(z[i] for z in stacked))), 1e-6)
  gradient = lambda *z: jax.grad(lambda *z: op(*z)[0].sum(), argnums=range(6))(*z)
  got = jax.vmap(gradient)(*stacked)
  assert_close([z[1] for z in got], list(gradient(*(z[1] for z in stacked))), 1e-6)


def test_it_says_what_it_cannot_run(monkeypatch):
  given = arrays(8)
  refused("cpp: disc='zoh'", op, *given, disc="zoh")
  refused("cpp: the states are complex", op, *given[:-1], given[-1] + 0j)
  with jax.enable_x64(True), pytest.raises(ValueError, match="cpp: it computes in float32, not in .'float64'"):
    op(*(z.astype("float64") for z in given))
  monkeypatch.setattr(cpp, "_registered", lambda source: "there is no C++ compiler")
  refused("cpp: there is no C.. compiler", op, *given)
  monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
  refused("cpp: it needs a CPU, not a gpu", op, *given)


def test_derivatives_of_the_second_order_are_refused(library):
  x, *rest = map(jnp.asarray, arrays(3))
  slope = jax.grad(lambda x: op(x, *rest)[0].sum())
  refused("KERNEL_IMPL=reference", jax.grad(lambda x: slope(x).sum()), x)


def test_where_it_cannot_be_built_another_form_runs(monkeypatch):
  monkeypatch.setattr(cpp, "_registered", lambda source: "there is no C++ compiler")
  given = arrays(8)
  with dispatch.use("cpp"):
    assert_close(op(*given, impl="auto"), op(*given, impl="xla"), 0)


def source(folder, text='extern "C" int f() { return 1; }'):
  file = folder / "kernel" / "cpp.cc"
  file.parent.mkdir(exist_ok=True)
  file.write_text(text)
  return file


def test_a_library_is_built_once(compiler, tmp_path):
  file, where = source(tmp_path), tmp_path / "cache"
  with concurrent.futures.ThreadPoolExecutor() as pool:
    paths = list(pool.map(lambda _: cpp.built(file, where), range(4)))
  assert len(set(paths)) == 1
  assert list(where.iterdir()) == [paths[0]], "builds leave something behind"
  before = paths[0].stat().st_mtime_ns
  assert cpp.built(file, where).stat().st_mtime_ns == before


def test_another_source_or_cpu_has_another_library(compiler, tmp_path, monkeypatch):
  file, where = source(tmp_path), tmp_path / "cache"
  first = cpp.built(file, where)
  source(tmp_path, 'extern "C" int f() { return 2; }')
  second = cpp.built(file, where)
  # the macros are what tells one CPU from another
  real = cpp._output
  monkeypatch.setattr(cpp, "_output", lambda command: real(command) + b"#define __OTHER__ 1" * ("-dM" in command))
  assert len({first, second, cpp.built(file, where)}) == 3


def test_why_there_is_no_library(compiler, tmp_path, monkeypatch):
  file, where = source(tmp_path, "int f() { return nothing; }"), tmp_path / "cache"
  with pytest.raises(cpp.Unavailable, match="fails: .*error: .nothing. was not declared|undeclared"):
    cpp.built(file, where)
  assert not list(where.iterdir()), "builds that fail leave something behind"
  (tmp_path / "file").touch()
  with pytest.raises(cpp.Unavailable, match="it cannot be built in"):
    cpp.built(source(tmp_path), tmp_path / "file")
  monkeypatch.setenv("CXX", "no-such-compiler -O1")
  with pytest.raises(cpp.Unavailable, match="the compiler no-such-compiler cannot be run"):
    cpp.built(file, where)
  monkeypatch.delenv("CXX")
  monkeypatch.setenv("PATH", str(tmp_path))
  with pytest.raises(cpp.Unavailable, match=r"there is no C\+\+ compiler: none of g\+\+, clang\+\+"):
    cpp.built(file, where)


def test_importing_builds_nothing(tmp_path):
  folders = dict(JAX_COMPILATION_CACHE_DIR=str(tmp_path), XDG_CACHE_HOME=str(tmp_path))
  out = child.python("-c", "from kernels import cpp, selective_scan; print(cpp.folder())", **folders).strip()
  assert out == str(tmp_path / "cpp")
  assert not Path(out).exists()
