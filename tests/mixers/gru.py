"""GRU: both places of its reset gate; tests/mixers/rnn.py has the other facts."""

SMALL = {"": {}}
ORACLE = {"": {}, "after": dict(reset_gate="after")}
REFUSED = [(dict(reset_gate="torch"), "reset_gate='torch'; choose from ['before', 'after']")]


def count(d):
  """Two square maps and a bias for each of r, z and n."""
  return 3 * (2 * d * d + d)
