"""Embeddings of hashed n-grams: the rows of tables, what ends an n-gram, and models that go on where they stop."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hybrids.embed.ngrams import NGrams
from hybrids.embed.tokens import Tokens
from hybrids.mixer import frozen
from hybrids.model import Model
from inference.beam import beam_search
from inference.generate import generate
from layers import ngrams
from tests import child
from tests.hybrids.filled import filled
from tests.refused import refused

B, T, D, VOCAB, END = 2, 9, 6, 11, 3
FIELDS = dict(width=D, vocab=VOCAB, order=3, heads=2, size=8, rows=20, multiple=4, sets=2, seed=5, end=END)
TOKENS = jax.random.randint(jax.random.key(0), (B, T), 0, VOCAB).at[0, 4].set(END)
START, RESET = jnp.zeros(B, jnp.int32), jnp.zeros((B, T), bool).at[1, 5].set(True)
STACK = dict(name="stack", pattern="g", depth=1, letters=dict(g=dict(name="min_gru")))


def splitmix(z):
  """Java's SplittableRandom after one step from z, by its published constants."""
  z = (z + 0x9E3779B97F4A7C15) % 2**64
  z = ((z ^ z // 2**30) * 0xBF58476D1CE4E5B9) % 2**64
  z = ((z ^ z // 2**27) * 0x94D049BB133111EB) % 2**64
  return z ^ z // 2**31


def multiplier(vocab, seed, number, place):
  state = (seed + 10_007 * number + 0x9E3779B97F4A7C15 * (place + 1)) % 2**64
  return 2 * (splitmix(state) % max(1, (2**63 - 1) // vocab // 2)) + 1


def prime(least, count):
  """The prime with `count` others between it and `least`."""
  found = least
  while count >= 0:
    is_prime = found > 1 and all(found % divisor for divisor in range(2, math.isqrt(found) + 1))
    count -= is_prime
    found += 1
  return found - 1


def expected(tables, tokens, *, order, heads, rows, seed, end, number=0):
  """The vectors of the n-grams of one document, token by token, with whole numbers of any size."""
  y = []
  for t in range(len(tokens)):
    window = [int(tokens[t])]
    for back in range(1, order):
      ended = t < back or end in (int(tokens[t - i]) for i in range(1, back + 1))
      window.append(end if ended else int(tokens[t - back]))
    parts, start = [], 0
    for table in range((order - 1) * heads):
      n, size = table // heads + 2, prime(rows, number * (order - 1) * heads + table)
      mixed = 0
      for place in range(n):
        mixed ^= window[place] * multiplier(VOCAB, seed, number, place)
      parts.append(tables[start + mixed % size])
      start += size
    y.append(np.concatenate(parts))
  return np.array(y)


@functools.cache
def fresh(**fields):
  module = NGrams(**FIELDS | fields)
  return module, filled(module, TOKENS, START)


def test_vectors_are_those_of_the_hashed_n_grams():
  """Of each set, in each document: an `end` and the start of a document are where n-grams begin."""
  module, variables = fresh()
  embedded = jax.jit(module.apply)(variables, TOKENS, START, reset=RESET)
  p = {name: np.asarray(value) for name, value in variables["params"].items() if name != "ngram_proj"}
  fields = {name: FIELDS[name] for name in ("order", "heads", "rows", "seed", "end")}
  n = np.zeros((B, T, 16))
  for row, documents in enumerate((((0, T),), ((0, 5), (5, T)))):
    for first, last in documents:
      own = np.asarray(TOKENS[row, first:last])
      each = [expected(p[f"tables_{number}"], own, number=number, **fields) for number in range(2)]
      n[row, first:last] = np.concatenate(each, axis=-1)
  x = p["embedding"][TOKENS] + n @ np.asarray(variables["params"]["ngram_proj"]["kernel"])
  np.testing.assert_allclose(embedded.x, x, rtol=1e-5, atol=1e-5)
  offered = NGrams(**FIELDS, use="layers").apply(variables, TOKENS, START, reset=RESET)
  np.testing.assert_allclose(offered.side["ngrams"], n, rtol=1e-5, atol=1e-6)
  np.testing.assert_array_equal(offered.x, p["embedding"][TOKENS])


@pytest.mark.parametrize("size", [2, 97, 2**16 + 1, 20_000_003, 2**31 - 1])
def test_rows_are_remainders_of_64_bits(size):
  """Of the largest tokens and multipliers, too."""
  tokens = np.array([[0, 1, 77, 2**16, 248_319], [5, 248_319, 0, 2**17 + 3, 248_319]], np.int32)
  by = [ngrams.multipliers(248_320, 3, seed=1234, layer=layer)[:2] for layer in range(3)] + [(2**63 - 1, 2**45 + 1)]
  for one, other in by:
    found = ngrams.rows(list(jnp.asarray(tokens)), (one, other), (size, 7))
    mixed = [int(a) * one % 2**64 ^ int(b) * other % 2**64 for a, b in tokens.T]
    np.testing.assert_array_equal(found, [[z % size, z % 7] for z in mixed])


def test_tables_have_a_prime_number_of_rows_each():
  module, _ = fresh()
  assert module.sizes_of(0) == (23, 29, 31, 37)
  assert module.sizes_of(1) == (41, 43, 47, 53)
  assert module.rows_of(0) == 120
  assert module.rows_of(1) == 184
  assert ngrams.primes(20_000_000, 0, 1) == (prime(20_000_000, 0),)


def whole(embed, body):
  return Model(width=D, vocab=VOCAB, embed=frozen(embed), body=frozen(body), head=frozen(dict(name="lm")))


def test_a_model_goes_on_where_it_stopped():
  """In two pieces and token by token, with padding and with a document that starts in the second piece."""
  fields = {name: value for name, value in FIELDS.items() if name not in ("width", "vocab", "sets")}
  letters = dict(n=dict(name="engram", size=8), g=dict(name="min_gru"))
  for embed, body in (
    (dict(name="ngrams", **fields), STACK),
    (dict(name="ngrams", use="layers", **fields), dict(name="stack", pattern="ng", depth=2, letters=letters)),
  ):
    model = whole(embed, body)
    variables = filled(model, TOKENS)

    @jax.jit
    def run(variables, model=model):
      y = model.apply(variables, TOKENS, reset=RESET)
      state, lengths = model.init_state(B, T), jnp.array([3, 1])
      _, state = model.apply(variables, TOKENS[:, :3], state, lengths=lengths, method="prefill")
      rest = jnp.stack([TOKENS[0, 3:7], TOKENS[1, 1:5]])
      some, state = model.apply(variables, rest, state, method="prefill_all")
      # the second row's document ends here
      more, reset = jnp.stack([TOKENS[0, 7:], TOKENS[1, 5:7]]), jnp.array([[False, False], [True, False]])
      _, state = model.apply(variables, more[:, :1], state, reset=reset[:, :1], method="prefill")
      last, _ = model.apply(variables, more[:, 1], state, method="step")
      return y, some, last

    y, some, last = run(variables)
    np.testing.assert_allclose(some[0], y[0, 3:7], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(some[1], y[1, 1:5], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(last, jnp.stack([y[0, 8], y[1, 6]]), rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_texts_of_a_batch_go_on_as_each_does_alone():
  """The last tokens of each text are its own, also after a beam was chosen."""
  fields = {name: value for name, value in FIELDS.items() if name not in ("width", "vocab")}
  model = whole(dict(name="ngrams", **fields), STACK)
  variables = jax.tree.map(lambda leaf: 3 * leaf, filled(model, TOKENS))
  prompts = [[1, 5, 2, 7, 9], [4, 8]]
  for search in (generate, functools.partial(beam_search, num_beams=3)):
    together = search(model, variables, prompts, max_new_tokens=6).tokens
    alone = [search(model, variables, [prompt], max_new_tokens=6).tokens for prompt in prompts]
    np.testing.assert_array_equal(together, np.concatenate(alone))


ON_A_MESH = """
import re, jax, jax.numpy as jnp
from jax.sharding import NamedSharding
from hybrids.embed.ngrams import NGrams
from training import sharding

module = NGrams(width=64, vocab=256, rows=4096, heads=4, use="layers")
tokens, start = jnp.zeros((8, 32), jnp.int32), jnp.zeros(8, jnp.int32)
loss = lambda variables, tokens: jnp.sum(module.apply(variables, tokens, start).side["ngrams"] ** 2)
mesh = sharding.make_mesh(data=2, fsdp=2, tensor=2)
with sharding.active(mesh):
  boxed = jax.eval_shape(module.init, jax.random.key(0), tokens, start)
  places = sharding.of_variables(dict(boxed), mesh)
  shapes = jax.tree.map(lambda box: box.value, dict(boxed), is_leaf=lambda leaf: hasattr(leaf, "names"))
  variables = jax.tree.map(lambda z, place: jax.ShapeDtypeStruct(z.shape, z.dtype, sharding=place), shapes, places)
  rows = jax.ShapeDtypeStruct(tokens.shape, tokens.dtype, sharding=NamedSharding(mesh, jax.P(sharding.ROWS)))
  program = jax.jit(jax.value_and_grad(loss), out_shardings=(None, places)).lower(variables, rows).compile().as_text()
table = shapes["params"]["tables_0"].shape
made = {int(size) for size in re.findall(r"f32\\[(\\d+),8\\]", program)}
assert table[1] == 8 and made, table
print(max(made) / table[0])
"""


@pytest.mark.slow
def test_no_device_of_a_mesh_has_more_than_its_part_of_the_tables():
  """Neither in the lookup nor in the gradient; four devices share the tables."""
  assert float(child.python("-c", ON_A_MESH, JAX_NUM_CPU_DEVICES="8")) == 0.25


def test_a_token_passes_one_row_of_each_table():
  shapes = jax.eval_shape(NGrams(**FIELDS).init, jax.random.key(0), TOKENS, START)["params"]
  assert shapes["tables_0"].used == 4 / 120


def test_earlier_tokens_change_what_a_token_adds():
  module, variables = fresh()
  x = module.apply(variables, TOKENS, START).x - Tokens(width=D, vocab=VOCAB).apply(variables, TOKENS, START).x
  other = TOKENS.at[:, 1].set((TOKENS[:, 1] + 1) % VOCAB)
  y = module.apply(variables, other, START).x - Tokens(width=D, vocab=VOCAB).apply(variables, other, START).x
  differs = np.abs(np.asarray(x - y)).max(axis=-1) > 1e-6
  assert differs[:, 1:4].all()
  assert not differs[:, [0, *range(4, T)]].any()


@pytest.mark.parametrize(
  "change, message",
  [
    (dict(use="both"), r"use='both'; choose from \['sum', 'layers'\]"),
    (dict(order=1), "embed.order=1; an n-gram has at least 2 tokens"),
    (dict(heads=0), "heads=0; it must be at least 1"),
    (dict(size=6), "embed.size=6 is no multiple of heads=2 times order - 1 = 2"),
    (dict(end=VOCAB), "embed.end=11 is no token of vocab=11"),
    (dict(use="layers", class_token="end"), "class_token='end' ends no n-gram"),
    (dict(sets=2**31 - 1), "in 4 tables; a set must have fewer than 2"),
    (dict(rows=2**30), "rows=1073741824 in 4 tables; a set must have fewer than 2"),
  ],
  ids=lambda value: ",".join(value) if isinstance(value, dict) else "",
)
def test_what_does_not_fit_is_said_when_it_is_made(change, message):
  refused(message, NGrams, **FIELDS | change)


def test_n_grams_that_nobody_reads_or_offers_are_refused():
  engram = dict(name="stack", pattern="n", depth=1, letters=dict(n=dict(name="engram")))
  said = r"reads \['ngrams'\] beside each token, and the embedding offers \[\]: a mixer 'engram' needs"
  refused(said, whole, dict(name="tokens"), engram)
  refused(r"reads \[\] .* offers \['ngrams'\]", whole, dict(name="ngrams", use="layers", heads=1), STACK)
