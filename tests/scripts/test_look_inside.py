"""What is drawn of a trained mixer is what the mixer does."""

import contextlib
import functools
import json
import re
from types import SimpleNamespace

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from matplotlib.figure import Figure

from configs import selective_copying
from data.task import build_task
from hybrids.mixer import build
from hybrids.model import Model, build_model, side_inputs
from scripts import look_inside
from scripts.pictures import draw, measure, three_views
from ssm.lti import diagonal
from training import optimizer, sharding
from training import state as state_lib
from training import workdir as workdir_lib
from training.checkpoint import Checkpoints

T, WIDTH = 12, 4
TASK = {"name": "selective_copying", "batch": 2, "length": 16, "vocab": 16, "tokens": 2, "eval_rows": 2}


@functools.cache
def layer(name, *, width=WIDTH, **kwargs):
  """A mixer with random parameters that reads noise."""
  rng = np.random.default_rng(0)
  mixer, x = build(name, width=width, **kwargs), jnp.asarray(rng.normal(size=(1, T, width)), jnp.float32)
  return measure.Layer(0, name, mixer, random_variables(mixer, x, rng), x, {})


def random_variables(module, inputs, rng):
  draw = lambda leaf: jnp.asarray(0.5 * rng.normal(size=leaf.shape), leaf.dtype)
  return jax.tree.map(draw, nn.meta.unbox(jax.eval_shape(module.init, jax.random.key(0), inputs)))


def toeplitz(row):
  return np.array([[row[t - s] if s <= t else 0 for s in range(len(row))] for t in range(len(row))])


# of 80 channels, sums with random signs are differentiated; where channels do not mix, each has the whole norm
@pytest.mark.parametrize("width", [WIDTH, 80])
def test_a_kernel_is_the_mixers_own_and_makes_its_implicit_attention(width):
  found = layer("s4d", width=width, state=4, activation="none")
  log_A, B, C, D, turns = found.mixer.apply(found.variables, method="recurrence")
  own = np.asarray(diagonal.taps(log_A, C * B, D, T, turns))
  np.testing.assert_allclose(measure.kernel(found), np.einsum("ct,cd->tcd", own, np.eye(width)), atol=1e-5)
  expected = toeplitz(np.sqrt(np.square(own).sum(axis=0)))
  np.testing.assert_allclose(measure.attention(found), expected, atol=1e-5 * expected.max())


def test_a_kernel_is_that_of_the_linear_part_and_selective_mixers_have_none():
  gated, plain = layer("s4d", state=4), layer("s4d", state=4, activation="none")
  np.testing.assert_array_equal(measure.kernel(gated), measure.kernel(plain._replace(variables=gated.variables)))
  assert measure.kernel(layer("mamba", state=2)) is None


def test_implicit_attention_is_the_norm_of_the_jacobian_and_zero_above_the_diagonal():
  found = layer("mamba", state=2)
  J = jax.jit(jax.jacobian(lambda x: found.mixer.apply(found.variables, x[None])[0]))(found.x[0])
  M = measure.attention(found)
  np.testing.assert_allclose(M, np.sqrt(np.square(J).sum(axis=(1, 3))), rtol=1e-4, atol=1e-6)
  assert not np.triu(M, 1).any()
  # causal, and not blind
  assert np.tril(M, -2).any()


def test_steps_are_the_mixers_own():
  found = layer("mamba", state=2)
  p = jax.tree.map(lambda z: np.asarray(z, float), found.variables["params"])
  u = (found.x[0] @ p["in_proj"]["kernel"])[:, : 2 * WIDTH]
  u = sum(p["conv"]["kernel"][k] * np.pad(u, ((3 - k, 0), (0, 0)))[:T] for k in range(4)) + p["conv"]["bias"]
  u = u / (1 + np.exp(-u))
  delta = (u @ p["x_proj"]["kernel"])[:, : p["dt_proj"]["kernel"].shape[0]]
  expected = np.log1p(np.exp(delta @ p["dt_proj"]["kernel"] + p["dt_proj"]["bias"]))
  dt = measure.steps(found)
  np.testing.assert_allclose(dt, expected, rtol=1e-4)
  # and they are what the state decays by
  np.testing.assert_allclose(
    measure.eigenvalues(found, tokens=T), np.exp(dt[..., None] * measure.poles(found)), rtol=1e-5
  )


@pytest.mark.parametrize("name", ["mamba2", "mamba3"])
def test_steps_of_heads_are_what_their_state_decays_by(name):
  """Mamba-3's decay has an A of its own for every token."""
  found = layer(name, state=4, head_size=4)
  dt = measure.steps(found)
  log_a = np.log(measure.eigenvalues(found, tokens=T))
  assert dt.shape == (T, 2)
  assert log_a.shape == (T, 2, 4, 4)
  if name == "mamba2":
    np.testing.assert_allclose(log_a[..., 0, 0], dt * measure.poles(found), rtol=1e-3)
  else:
    assert (log_a[..., 0, 0] <= -found.mixer.A_floor * dt).all()


@pytest.mark.parametrize("name", ["s4", "s4d"])
def test_eigenvalues_are_those_of_the_discretised_system(name):
  """S4's by Tustin's rule from those of its dense A, with both of each pair; S4D's by zero-order hold, with one."""
  found = layer(name, state=4)
  dt = np.exp(np.asarray(found.variables["params"]["log_dt"]))[:, None]
  lam = measure.poles(found)
  expected = (1 + dt * lam / 2) / (1 - dt * lam / 2) if name == "s4" else np.exp(dt * lam)
  # sorted, those of a pair could change places with their last digit
  apart = np.abs(measure.eigenvalues(found, tokens=1)[0][..., :, None] - expected[..., None, :])
  assert apart.min(axis=-1).max() < 1e-4
  assert apart.min(axis=-2).max() < 1e-4


@pytest.mark.parametrize("name", ["lstm", "mlp", "rnn"])
def test_what_a_mixer_does_not_have_is_not_drawn(name):
  """Two parts of an LSTM's state make each other; an RNN's is one."""
  found = layer(name)
  assert measure.kernel(found) is None
  assert measure.poles(found) is None
  assert measure.steps(found) is None
  assert (measure.eigenvalues(found, tokens=1) is None) == (name != "rnn")


def test_mixers_are_called_with_what_reaches_them_in_the_model():
  """Two layers that run in one loop: embedding, both results and the last norm make the model's logits."""
  body = {"name": "stack", "depth": 2, "pattern": "m", "letters": {"m": {"name": "min_gru"}}}
  model = Model(vocab=5, width=WIDTH, body=body, embed={"std": 1.0})
  inputs = jnp.arange(T)[None] % 5
  variables = random_variables(model, inputs, np.random.default_rng(0))
  x = variables["params"]["embed"]["embedding"][inputs]
  found = measure.layers(model, variables, {"inputs": inputs})
  assert [(each.number, each.name) for each in found] == [(0, "min_gru"), (1, "min_gru")]
  for each in found:
    x = x + each.mixer.apply(each.variables, each.x)
  x = variables["params"]["body"]["final_norm"]["scale"] * x / np.sqrt(np.square(x).mean(axis=-1, keepdims=True))
  expected = x @ variables["params"]["embed"]["embedding"].T
  np.testing.assert_allclose(model.apply(variables, inputs), expected, rtol=1e-3, atol=1e-4)


def events(**fields):
  """A run whose rows have gaps between their tokens, 1 of two rows being shorter."""
  batch = {"inputs": np.arange(2 * T).reshape(2, T) % 5, "dt": np.linspace(0.1, 2, 2 * T).reshape(2, T)}
  batch["lengths"] = np.array([T, 6])
  body = {"name": "stack", "depth": 1, "pattern": "m", "letters": {"m": {"name": "s5", "state": 4}}}
  model = Model(vocab=5, width=WIDTH, body=body)
  variables = random_variables(model, jnp.asarray(batch["inputs"][:1]), np.random.default_rng(0))
  task = {"head": "lm", "features": None, "eval_sets": lambda: {"validation": lambda: iter([batch])}} | fields
  return SimpleNamespace(name="timed", task=SimpleNamespace(**task), model=model, variables=variables), batch


def test_gaps_between_tokens_reach_the_mixers():
  run, batch = events()
  row = look_inside.read_row(run, row=1, text=None, tokens=8)
  (found,) = measure.layers(run.model, run.variables, {"inputs": row["inputs"], **side_inputs(row)})
  np.testing.assert_allclose(found.keywords["side"]["dt"], batch["dt"][1:, :6], rtol=1e-6)
  without = found._replace(keywords={})
  assert np.abs(measure.attention(found) - measure.attention(without)).max() > 0.01


def test_all_real_eigenvalues_are_drawn():
  found = layer("s4d", state=64, A_init="real", disc="bilinear", dt_min=0.1, dt_max=0.1, activation="none")
  values = np.real(measure.eigenvalues(found, tokens=1))
  assert values.min() < -0.01
  figure = Figure()
  draw.draw_eigenvalues(figure, SimpleNamespace(poles=None), values)
  assert sum(bar.get_height() for bar in figure.axes[0].patches) == values.size


def test_a_pair_of_documents_is_refused():
  with pytest.raises(ValueError, match="a row of timed is a pair of documents"):
    look_inside.read_row(events(head="dual_encoder")[0], row=0, text=None, tokens=8)


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
  """A run that was saved at once."""
  folder = tmp_path_factory.mktemp("runs") / "tiny"
  folder.mkdir()
  config = selective_copying.get_config("pattern=s-,s=s4d,s.state=4,depth=2,width=4")
  config.data = TASK
  workdir_lib.write_json(folder / workdir_lib.CONFIG, json.loads(config.to_json()))
  task = build_task(**config.data.to_dict())
  model = build_model(task, **config.model.to_dict())
  shapes = state_lib.variables_shape(model, task)
  tx = optimizer.build(shapes["params"], steps=config.steps, **config.optimizer.to_dict())
  mesh = sharding.make_mesh(devices=jax.devices()[:1])
  with sharding.active(mesh), contextlib.closing(Checkpoints(folder / "checkpoints")) as checkpoints:
    init, _ = state_lib.blueprint(model, task, tx, mesh, stateful=False)
    checkpoints.save(1, init(0))
  return folder


def test_a_run_is_drawn(workdir, tmp_path, capsys):
  assert look_inside.main([str(workdir), f"--out={tmp_path}", "--tokens=8"]) == 0
  names = ["kernel.png", "eigenvalues.png", "attention.png"]
  assert capsys.readouterr().out.split() == [str(tmp_path / name) for name in names]
  assert all((tmp_path / name).read_bytes().startswith(b"\x89PNG") for name in names)


def test_a_step_that_was_not_saved_is_one_line(workdir, tmp_path, capsys):
  assert look_inside.main([str(workdir), f"--out={tmp_path / 'pictures'}", "--step=5"]) == 2
  error = capsys.readouterr().err
  assert error.startswith("look_inside: checkpoint 5 in")
  assert error.count("\n") == 1
  assert not (tmp_path / "pictures").exists()
  (tmp_path / "file").touch()
  assert look_inside.main([str(workdir), f"--out={tmp_path / 'file'}"]) == 2
  assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize(
  "given, message",
  [
    (dict(row=2, text=None), "--row=2: set 'validation' of tiny has rows 0 to 1"),
    (dict(row=-1, text=None), "--row=-1: set 'validation' of tiny has rows 0 to 1"),
    (dict(row=0, text="hello"), "--text: task SelectiveCopying of tiny has no text; use --row"),
  ],
)
def test_a_row_that_is_not_there_is_named(given, message):
  run = SimpleNamespace(name="tiny", task=build_task(**TASK))
  with pytest.raises(ValueError, match=re.escape(message)):
    look_inside.read_row(run, tokens=8, **given)


def test_a_layer_that_is_not_there_is_named():
  layers = [layer("s4d", state=4), layer("mlp")._replace(number=1)]
  run = SimpleNamespace(name="tiny")
  with pytest.raises(ValueError, match=re.escape("--layer=7: tiny has layers 0 (s4d), 1 (mlp)")):
    look_inside.choose(run, layers, 7)
  # a channel mixer is drawn if it is asked for
  assert look_inside.choose(run, layers, None) == layers[:1]
  assert look_inside.choose(run, layers, 1) == layers[1:]


def test_a_folder_without_a_run_is_named(tmp_path, mistaken):
  folder = str(tmp_path / "none")
  mistaken(look_inside.main, [folder, f"--out={tmp_path}"], "none holds no run: it has no config.json")


@pytest.mark.slow
def test_three_views_lie_on_each_other():
  gaps = three_views.gaps(three_views.views())
  assert gaps["recurrence"] < 1e-5
  # Tustin's rule against the exact solution
  assert gaps["ode"] < 0.01
