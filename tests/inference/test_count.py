"""Counts agree with what is allocated and with closed forms."""

import json
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import optax
import pytest
from rich.console import Console

import main as program
from hybrids import recipes
from hybrids.model import Model
from inference import count as counts

MIXERS = {"m": {"name": "mamba", "state": 4}, "a": {"name": "softmax", "heads": 2}, "-": {"name": "mlp"}}


def task(**kwargs) -> SimpleNamespace:
  return SimpleNamespace(
    **{"head": "lm", "vocab": 11, "features": None, "classes": None, "batch": 3, "length": 16} | kwargs
  )


def language_model(pattern: str, *, tie: bool = True, vocab: int = 11, width: int = 8, **body) -> Model:
  stack = {"name": "stack", "depth": len(pattern), "pattern": pattern, "letters": MIXERS} | body
  return Model(vocab=vocab, width=width, body=stack, head={"name": "lm", "tie": tie})


def test_parameters_and_memory_are_those_of_the_arrays():
  model, tx = language_model("a-", tie=False), optax.adam(1e-3)
  found = counts.count(model, task(), tx=tx)
  params = jax.jit(model.init)(jax.random.key(0), jnp.zeros((1, 16), jnp.int32))["params"]
  assert found["parameters"] == sum(x.size for x in jax.tree.leaves(params))
  assert found["parameters"] == sum(found[f"parameters/{name}"] for name in params)
  assert found["memory/parameters"] == found["memory/gradients"] == sum(x.nbytes for x in jax.tree.leaves(params))
  assert found["memory/optimizer"] == sum(x.nbytes for x in jax.tree.leaves(tx.init(params)))
  assert found["memory/training"] == sum(v for k, v in found.items() if k.startswith("memory/")) / 2


@pytest.mark.parametrize("pattern, kind, lengths", [("m", "fixed", [16]), ("a", "grows", [16, 256])])
def test_state_is_that_of_one_sequence(pattern, kind, lengths):
  model = language_model(pattern)
  found = counts.count(model, task(), contexts=(256,))
  assert found["state/kind"] == kind
  sizes = {length: sum(x.nbytes for x in jax.tree.leaves(model.init_state(1, length))) for length in lengths}
  assert {name: value for name, value in found.items() if "@" in name} == {
    f"state/bytes@{length}": value for length, value in sizes.items()
  }


def test_states_are_counted_as_far_as_a_model_reads():
  hyena = {"name": "stack", "depth": 1, "pattern": "h", "letters": {"h": {"name": "hyena", "max_len": 64}}}
  found = counts.count(Model(vocab=11, width=8, body=hyena, head={"name": "lm"}), task(), contexts=(64, 128))
  assert [name for name in found if "@" in name] == ["state/bytes@16", "state/bytes@64"]


def test_jambas_cache_at_256k_is_the_published_4_gb():
  recipe = recipes.get_recipe("jamba_v0.1")
  section = recipe.model
  section["body"]["letters"]["a"]["cache_dtype"] = "bfloat16"
  model = Model(vocab=recipe.vocab, **section)
  mamba = 28 * 8192 * (16 + 3) * 4
  assert counts.state_bytes(model, 2**18) - mamba == pytest.approx(4 * 2**30, rel=3e-3)


def test_flops_of_a_plain_network_are_two_a_weight():
  found = counts.count(language_model("-", width=64), task())
  weights = found["memory/parameters"] / 4 - 11 * 64
  assert found["flops/forward"] == pytest.approx(2 * weights, rel=0.1)
  assert found["flops/training"] == 3 * found["flops/forward"]
  assert found["flops/step"] == pytest.approx(found["flops/forward"], rel=0.1)


def test_tokens_of_both_documents_of_a_pair_count():
  body = {"name": "stack", "depth": 1, "pattern": "-", "letters": MIXERS}
  heads = {"name": "classifier"}, {"name": "dual_encoder"}
  one, two = (Model(vocab=11, classes=2, width=8, body=body, head=head) for head in heads)
  single = counts.count(one, task(head="classifier", classes=2))
  pair = counts.count(two, task(head="dual_encoder", classes=2))
  assert (single["batch/tokens"], pair["batch/tokens"]) == (16, 32)
  # but for the head, which reads a row once
  assert pair["flops/forward"] == pytest.approx(single["flops/forward"], rel=0.1)


def test_kept_activations_grow_with_the_batch_and_shrink_with_remat():
  size = lambda batch, **kwargs: counts.count(language_model("m-", depth=4, **kwargs), task(batch=batch))[
    "memory/activations"
  ]
  assert size(6) == pytest.approx(2 * size(3), rel=0.05)
  assert size(3, remat="full") < size(3) / 2


def test_a_model_larger_than_this_machine_is_counted():
  model = language_model("m-", width=32768, depth=8, vocab=50000)
  found = counts.count(model, task(vocab=50000, length=2048))
  assert found["memory/training"] > 5e11


def test_classifiers_of_features_have_no_step():
  body = {"name": "stack", "depth": 1, "pattern": "s", "letters": {"s": {"name": "s5", "state": 4}}}
  model = Model(classes=10, features=1, width=8, body=body, head={"name": "classifier"})
  found = counts.count(model, task(head="classifier", vocab=None, features=1, classes=10))
  assert "flops/step" not in found
  assert found["parameters"] > 0


def test_table_shows_every_number():
  found = counts.count(language_model("m-"), task())
  console = Console(record=True, width=100)
  console.print(counts.table(found))
  text = console.export_text()
  assert f"{found['parameters']:,}" in text
  assert "state of a sequence of 16 tokens" in text
  assert "rows of a batch" in text
  assert len([line for line in text.splitlines() if line.startswith("│")]) == len(found)


def test_the_command_line_asks_for_states_of_other_lengths(capsys, mistaken):
  command = ["main.py", "--mode=count", "--json", "--config=configs/text.py:mixer=softmax,width=8,depth=1,length=64"]
  assert program.main([*command, "--contexts=2147483647,100"]) == 0
  found = json.loads(capsys.readouterr().out)
  assert [key for key in found if key.startswith("state/bytes")] == [
    "state/bytes@64",
    "state/bytes@100",
    "state/bytes@2147483647",
  ]
  # a key and a value of width 8 in float32, a segment and a position for each token
  assert found["state/bytes@100"] - found["state/bytes@64"] == 36 * (2 * 8 * 4 + 8)
  for bad in ("", "0", "-5", "4096,x", "1e6", "4096,", "2147483648"):
    mistaken(
      program.main, [*command, f"--contexts={bad}"], f"--contexts={bad}; give whole numbers from 1 to 2147483647"
    )
  mistaken(program.main, ["main.py", "--contexts=9", *command[3:], "--workdir=x"], "--contexts is for --mode count")
