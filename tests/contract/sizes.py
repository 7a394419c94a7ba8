"""A small instance of every mixer for the contract suite."""

from typing import Any

import numpy as np

from tests.contract.case import D

# Arguments beside the width for a small instance of every mixer, by its name. What follows the name tells rows apart: a
# mixer has a second one where arguments change its kind of state or what it reads.
SMALL: dict[str, dict[str, Any]] = {
  "based": dict(heads=2, key_size=3),
  "delta_net": dict(heads=2),
  "dss": dict(state=3),
  "dss, softmax": dict(state=3, kernel="softmax"),
  "event_ssm, dt": dict(state=8, blocks=2),
  "gated_conv": {},
  "gated_delta_net": dict(heads=2),
  "gated_mlp": {},
  "gla": dict(heads=2, gate_rank=3),
  "gru": {},
  "gss": dict(inner=3, outer=12, state=4),
  "h3": dict(state=4),
  "h3, heads": dict(state=4, head_dim=2),
  "hgrn2": dict(head_size=4),
  "hyena": dict(filter_width=6, filter_depth=1),
  "hyena, heads": dict(heads=2, outer_mixing=True, filter_width=6, filter_depth=1),
  "hyena, third order": dict(order=3, filter_width=4, features=5, taps=2),
  "kda": dict(heads=2),
  "lightning": dict(heads=2, head_size=3),
  "liquid_s4": dict(state=6, degree=3),
  "liquid_s4, kb": dict(state=4, degree=3, kernel="kb"),
  "liquid_s4, official": dict(state=4, degree=3, form="official"),
  "local": dict(heads=2, window=5),
  "lru": dict(state=6),
  "lssl": dict(state=4),
  "lstm": {},
  "mamba": dict(state=4, dt_rank=2),
  "mamba, complex": dict(state=4, dt_rank=2, spectrum="complex", disc="zoh", groups=2, norms="learned"),
  "mamba2": dict(state=4, head_size=4, groups=2, dt_most=0.1),
  "mamba2, beside an MLP": dict(state=3, head_size=4, ssm_width=8),
  "mamba3": dict(state=4, head_size=4, groups=2),
  "mamba3, MIMO": dict(state=4, head_size=4, rank=2, out_norm=True),
  "mega": dict(state=2, keys=4, chunk=5),
  "mega, both ways": dict(state=2, keys=3, chunk=4, position="simple", bidirectional=True),
  "mega, laplace": dict(state=2, keys=4, chunk=5, weights="laplace"),
  "mega, no chunks": dict(state=2, keys=4, inner=6, chunk=None),
  "mega, simple": dict(state=2, keys=3, chunk=4, position="simple"),
  "min_gru": dict(expand=2),
  "mla": dict(heads=2, rank=5, q_rank=6, head_size=3, rope_size=4, value_size=5),
  "mlp": dict(expand=2),
  "mlstm": dict(expand=1, heads=2, block_size=2),
  "retnet": dict(heads=2),
  "rglru": dict(inner=12, heads=3),
  "rnn": {},
  "rwkv4": {},
  "rwkv6": dict(head_size=4, mix_rank=2, decay_rank=2),
  "rwkv7": dict(head_size=4, w_rank=2, a_rank=2, v_rank=2, g_rank=40),
  "rwkv7, v_first": dict(head_size=4, w_rank=2, a_rank=2, v_rank=2, g_rank=40, layer=1, depth=3),
  "rwkv_channel": {},
  "rwkv_channel, with receptance": dict(version=4, inner=12),
  "s4": dict(state=6),
  "s4d": dict(state=6),
  "s4nd": dict(state=4, rank=2),
  "s4nd, DPLR": dict(state=4, structure="dplr"),
  "s4nd, video": dict(state=2, dim=3),
  "s5": dict(state=8, blocks=2),
  "s5, both ways": dict(state=6, bidirectional=True),
  "s5, dt": dict(state=8),
  "sgconv": dict(taps=4),
  "slstm": dict(heads=2),
  "softmax": dict(heads=2, position="rope"),
  "softmax, alibi": dict(heads=4, kv_heads=2, head_size=3, position="alibi", softcap=2.0, gate=True, qk_norm="all"),
  "softmax, full": dict(heads=2, mask="full", position="rope"),
  "softmax, window": dict(heads=4, kv_heads=2, window=5, position="rope", bias="all"),
  "softmax, xpos": dict(heads=2, head_size=8, position="xpos", rotary=0.5, qk_norm="head", bias="qkv"),
  "ssm2d": dict(state=2, numbers="complex"),
  # wrappers and stacks are mixers too; the hybrid has a remainder after its repeated groups
  "bidirectional": dict(mixer=dict(name="mamba", state=4, dt_rank=2)),
  "stack": dict(depth=3, pattern="m", mixers={"m": dict(name="mamba", state=4)}, norm="layer", norm_position="post"),
  "stack, hybrid": dict(
    depth=7,
    pattern="sa-",
    mixers={"s": dict(name="s5", state=4), "a": dict(name="softmax", heads=2), "-": dict(name="mlp", expand=2)},
    dropout=0.5,
    remat="full",
  ),
  "image_scan": dict(mixer=dict(name="mamba", state=4, dt_rank=2), orders=("column", "snake_reversed"), merge="mean"),
  "shell": dict(mixer=dict(name="s5", state=4)),
  "shell, h3": dict(mixer=dict(name="s5", state=4), kind="h3", taps=3),
  "shell, no gate": dict(mixer=dict(name="softmax", heads=2), kind="none"),
}
# Where those are that have no mixer file.
PATHS = {"shell": "hybrids.shells.Shell", "stack": "hybrids.stack.Stack"}
# Side inputs "b t …" of the rows that are tested with some.
GAPS = {"dt": lambda b, t: 0.1 + np.random.default_rng(0).exponential(size=(b, t))}
FIRST = {"v_first": lambda b, t: np.random.default_rng(0).standard_normal((b, t, D))}
SIDE = {"event_ssm, dt": GAPS, "rwkv7, v_first": FIRST, "s5, both ways": GAPS, "s5, dt": GAPS}
