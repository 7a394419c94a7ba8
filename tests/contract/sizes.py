"""A small instance of every mixer for the contract suite."""

from typing import Any

from tests import mixers

# LayerNorm after each sum
POST = dict(norm=dict(name="layer"), norm_position="post")
# Arguments beside the width for a small instance of every mixer, by its name. What follows the name tells rows apart: a
# mixer has a second one where arguments change its kind of state or what it reads.
SMALL: dict[str, dict[str, Any]] = {
  "bigbird": dict(heads=2, block=2, random=1),
  "fnet": {},
  "gated_mlp": {},
  "gru": {},
  "linear_transformer": dict(heads=2),
  "linear_transformer, full": dict(heads=2, mask="full", bias=True),
  "linformer": dict(heads=2, rank=3),
  "linformer, two mixtures": dict(heads=2, rank=3, shared=False, bias=True),
  "local": dict(heads=2, window=5),
  "lstm": {},
  "luna": dict(heads=2, packed=3),
  "luna, tied": dict(heads=2, packed=3, tied=True, bias=False),
  "min_gru": dict(expand=2),
  "mla": dict(heads=2, rank=5, q_rank=6, head_size=3, rope_size=4, value_size=5),
  "mlp": dict(expand=2),
  "nystromformer": dict(heads=2, landmarks=3, taps=3),
  "performer": dict(heads=2, features=5),
  "performer, full": dict(heads=2, features=5, mask="full"),
  "performer, relu": dict(heads=1, features=9, kernel="relu", bias=True),
  # of two hashes, since bfloat16 makes another of several now and then
  "reformer": dict(heads=2, buckets=2, rounds=2, chunk=3),
  "rnn": {},
  "rwkv_channel": {},
  "rwkv_channel, with receptance": dict(version=4, inner=12),
  "slstm": dict(heads=2),
  "softmax": dict(heads=2, position="rope"),
  "softmax, alibi": dict(heads=4, kv_heads=2, head_size=3, position="alibi", softcap=2.0, gate=True, qk_norm="all"),
  "softmax, full": dict(heads=2, mask="full", position="rope"),
  "softmax, persistent": dict(heads=2, window=4, persistent=2, position="rope"),
  "softmax, window": dict(heads=4, kv_heads=2, window=5, position="rope", bias="all"),
  "softmax, xpos": dict(heads=2, head_size=8, position="xpos", rotary=0.5, qk_norm="head", bias="qkv"),
  "titans": dict(heads=2, inner=3, chunk=4),
  "titans, delta rule": dict(heads=2, layers=1, chunk=1, momentum=False),
  "titans, linear": dict(layers=1, chunk=5, decay=False),
  "titans_mac": dict(heads=2, persistent=2, segment=4, memory=dict(inner=3, chunk=3)),
  "titans_mac, linear": dict(heads=2, persistent=0, segment=3, position="none", memory=dict(layers=1, chunk=3)),
  "titans_mag": dict(heads=2, persistent=2, window=4, memory=dict(inner=3, chunk=3)),
  "titans_mal": dict(heads=2, persistent=2, window=4, memory=dict(layers=1, chunk=3)),
  # wrappers and stacks are mixers too; the hybrid has a remainder after its repeated groups
  "bidirectional": dict(mixer=dict(name="mamba", state=4, dt_rank=2)),
  "stack": dict(depth=3, pattern="m", letters={"m": dict(name="mamba", state=4)}, branch=POST),
  "stack, hybrid": dict(
    depth=7,
    pattern="sa-",
    letters={"s": dict(name="s5", state=4), "a": dict(name="softmax", heads=2), "-": dict(name="mlp", expand=2)},
    branch=dict(dropout=0.5),
    remat="full",
  ),
  "image_scan": dict(mixer=dict(name="mamba", state=4, dt_rank=2), orders=("column", "snake_reversed"), merge="mean"),
  "shell": dict(mixer=dict(name="s5", state=4)),
  "shell, h3": dict(mixer=dict(name="s5", state=4), kind="h3", taps=3),
  "shell, no gate": dict(mixer=dict(name="softmax", heads=2), kind="none"),
}
# Where those are that have no mixer file.
PATHS = {"shell": "hybrids.shells.Shell", "stack": "hybrids.body.stack.Stack"}
# The tables of each mixer's own file.
SMALL |= mixers.table("SMALL")
SIDE = mixers.table("SIDE")
PATHS |= {name: file.PATH for name, file in mixers.files().items() if hasattr(file, "PATH")}
