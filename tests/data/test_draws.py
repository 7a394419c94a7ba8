import numpy as np

from data import draws


def test_a_row_does_not_depend_on_the_rows_made_with_it():
  together = draws.bits(3, "s", 5, 7, 13)
  assert np.array_equal(together, np.concatenate([draws.bits(3, "s", 5 + i, 1, 13) for i in range(7)]))
  assert together.dtype == np.uint32
  assert len({draws.bits(*key, 0, 1, 8).tobytes() for key in ((0, "a"), (1, "a"), (0, "b"))}) == 3
  assert draws.bits(-1, "s", 2**70, 1, 3).shape == (1, 3)


def test_bits_are_frozen():
  # results name their seed, so a seed must mean the same rows in every version of numpy
  assert draws.bits(0, "frozen", 0, 1, 3)[0].tolist() == [2134383973, 599751280, 405696425]


def test_below_and_unit_are_uniform():
  u = draws.bits(0, "uniform", 0, 1000, 100)
  counts = np.bincount(draws.below(u, 10).ravel(), minlength=10)
  assert counts.size == 10
  assert abs(counts / u.size - 0.1).max() < 5 * np.sqrt(0.1 / u.size)
  x = draws.unit(u)
  assert x.min() > 0
  assert x.max() < 1
  assert abs(x.mean() - 0.5) < 5 * np.sqrt(1 / 12 / u.size)
  extremes = np.array([0, 2**32 - 1], np.uint32)
  assert draws.below(extremes, 7).tolist() == [0, 6]
  assert 0 < draws.unit(extremes).min() < draws.unit(extremes).max() < 1


def test_distinct_is_a_uniform_choice_in_random_order():
  found = draws.distinct(draws.bits(0, "distinct", 0, 20000, 3), 5)
  assert all(len(set(row)) == 3 for row in found.tolist())
  orders, counts = np.unique(found, axis=0, return_counts=True)
  assert len(orders) == 60
  assert abs(counts / 20000 - 1 / 60).max() < 5 * np.sqrt(1 / 60 / 20000)
  assert sorted(draws.distinct(draws.bits(0, "all", 0, 1, 6), 6)[0].tolist()) == list(range(6))


def test_weighted_is_sequential_sampling_without_replacement():
  p = np.array([1.0, 0.5, 0.25, 0.25])
  found = draws.weighted(draws.bits(0, "weighted", 0, 40000, 4), p, 2)
  for first in range(4):
    share = (found[:, 0] == first).mean()
    assert abs(share - p[first] / 2) < 0.015
    for second in set(range(4)) - {first}:
      expected = p[first] / 2 * p[second] / (2 - p[first])
      assert abs((found == [first, second]).all(1).mean() - expected) < 0.015


def test_permutations_differ_by_index_and_hold_everything():
  one, two = (draws.permutation(0, "p", i, 50) for i in (0, 1))
  assert sorted(one.tolist()) == sorted(two.tolist()) == list(range(50))
  assert one.tolist() != two.tolist()
