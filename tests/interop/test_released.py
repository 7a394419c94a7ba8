"""Released models beside transformers: every fixture folder is read by its config.json alone."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from inference.generate import generate
from interop import hf
from tests.contract.case import jit
from tests.interop.released import loaded, marked, tolerance

# these are compared in the default suite, the rest by the slow tests, and so are all forms but the parallel one
QUICK = ("gpt2", "mamba")
FORMS = ("mamba",)


@pytest.mark.parametrize("folder", marked(slow=True, quick=QUICK))
def test_logits_are_those_of_transformers(folder):
  model, variables, config, reference = loaded(folder)
  long, short = reference["input_ids_128"], reference["input_ids_37"]
  # both lengths in one program: what follows a row's end does not reach back
  y = jit(model.apply)(variables, np.concatenate([long, np.pad(short, ((0, 0), (0, long.shape[1] - short.shape[1])))]))
  for logits, name in ((y[: len(long)], "logits_128"), (y[len(long) :, : short.shape[1]], "logits_37")):
    np.testing.assert_allclose(logits, reference[name], rtol=0, atol=tolerance(config, reference), err_msg=name)


@pytest.mark.parametrize("folder", marked(slow=True, quick=FORMS))
def test_prefill_and_steps_are_the_full_forward(folder):
  model, variables, config, reference = loaded(folder)
  tokens, first = reference["input_ids_37"], 12

  @jit
  def run(variables, tokens):
    state = model.init_state(*tokens.shape)
    y, state = model.apply(variables, tokens[:, :first], state, method="prefill_all")
    apart = model.apart(variables)

    def step(state, token):
      y, state = model.apply(apart, token, state, method="step")
      return state, y

    _, rest = jax.lax.scan(step, state, tokens[:, first:].T)
    return jnp.concatenate([y, rest.swapaxes(0, 1)], axis=1)

  np.testing.assert_allclose(run(variables, tokens), reference["logits_37"], rtol=0, atol=tolerance(config, reference))


@pytest.mark.parametrize("folder", marked(slow=True))
def test_greedy_continuation_is_that_of_the_full_forward(folder):
  model, variables, _, reference = loaded(folder)
  if "gen_prompt" not in reference:
    pytest.skip("transformers' cache of this family does not work")
  prompt = reference["gen_prompt"].reshape(-1, reference["gen_prompt"].shape[-1])
  full = reference["gen_logits_full"].reshape(len(prompt), -1, model.vocab)
  new = generate(model, variables, prompt, max_new_tokens=full.shape[1])
  np.testing.assert_array_equal(new.tokens, full.argmax(-1))


@pytest.mark.parametrize("folder", marked(slow=True, quick=FORMS))
def test_the_loss_is_that_of_transformers_and_its_gradient_finite(folder):
  model, variables, _, reference = loaded(folder)
  tokens = reference["input_ids_37"]
  batch = {"inputs": tokens[:, :-1], "targets": tokens[:, 1:], "weights": np.ones(tokens[:, 1:].shape, np.float32)}
  batch = jax.tree.map(jnp.asarray, batch)

  @jit
  def run(variables):
    def loss(params):
      total, weight = model.apply({**variables, "params": params}, batch, method="loss")["loss"]
      return total / weight

    return jax.value_and_grad(loss)(variables["params"])

  value, gradient = run(variables)
  np.testing.assert_allclose(value, reference["loss_37"], rtol=0, atol=1e-4)
  assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))


@pytest.mark.parametrize("folder", marked(slow=True, quick=QUICK))
def test_what_is_saved_is_what_was_loaded(folder, tmp_path):
  model, variables, config, _ = loaded(folder)
  hf.save(tmp_path / "out", model, variables, config)
  again, read, config_again = hf.load(tmp_path / "out")
  assert again == model
  assert config_again == {**config, "dtype": "float32"}
  jax.tree.map(np.testing.assert_array_equal, read, variables)
