"""Every mixer, forward and forward+backward; those with a peer once more at its size, beside it."""

from typing import Any, NamedTuple

import jax

from hybrids import mixer
from scripts.benchmarks.case import Case, compiled, gradients
from scripts.peers import jax_layers, torch_layers

BATCH, LENGTH, WIDTH = 8, 4096, 128
# images are as long as they are large; time grows with the square of the length
SIZES = dict.fromkeys(("fox", "mla", "s4nd", "softmax", "ssm2d"), (BATCH, 1024, WIDTH))


class Beside(NamedTuple):
  """One of our mixers and the same layer elsewhere."""

  mixer: str
  fields: dict[str, Any]  # ours
  jax_peers: dict[str, dict[str, Any]] = {}
  torch_peers: dict[str, dict[str, Any]] = {}
  size: tuple[int, int, int] = (BATCH, LENGTH, WIDTH)


SHORT = (4, 1024, WIDTH)
# "state" counts real numbers in ours and in the peers' S5 and S4D, complex ones in all three LRU; what follows the
# state space is another layer there
PEERS = (
  Beside("s4d", dict(state=64, activation="none"), {"discretax S4D": dict(state=64), "linax S4D": dict(state=64)}),
  Beside("s5", dict(state=64, activation="none"), {"discretax S5": dict(state=64), "linax S5": dict(state=64)}),
  Beside("lru", dict(state=64, activation="none"), {"discretax LRU": dict(state=64), "linax LRU": dict(state=64)}),
  Beside("mamba", {}, {}, {"transformers MambaMixer": {}, "mambapy MambaBlock": {}}, SHORT),
  Beside("mamba2", {}, {}, {"transformers Mamba2Mixer": dict(head_dim=64, state_size=128)}, (2, 1024, WIDTH)),
  Beside(
    "rglru",
    dict(inner=WIDTH, heads=4),
    {},
    {"transformers RecurrentGemmaRecurrentBlock": dict(num_attention_heads=4)},
    SHORT,
  ),
  Beside("gated_conv", {}, {}, {"transformers Lfm2ShortConv": {}}, SHORT),
  Beside(
    "softmax",
    dict(heads=4, position="rope"),
    {},
    {"transformers LlamaAttention": dict(num_attention_heads=4)},
    SHORT,
  ),
  Beside(
    "local",
    dict(heads=4, window=256),
    {},
    {"transformers RecurrentGemmaAttention": dict(num_attention_heads=4, window=256)},
    SHORT,
  ),
  Beside(
    "mla",
    dict(heads=4, rank=64, head_size=32, rope_size=16, value_size=32),
    {},
    {
      "transformers DeepseekV3Attention": dict(
        num_attention_heads=4,
        q_lora_rank=None,
        kv_lora_rank=64,
        qk_nope_head_dim=32,
        qk_rope_head_dim=16,
        v_head_dim=32,
      )
    },
    SHORT,
  ),
  Beside("rwkv4", {}, {}, {"transformers RwkvSelfAttention": {}}, SHORT),
  Beside(
    "lightning",
    dict(heads=2, head_size=64),
    {},
    {"transformers MiniMaxLightningAttention": dict(num_attention_heads=2, num_key_value_heads=2, head_dim=64)},
    SHORT,
  ),
  Beside(
    "gated_delta_net",
    dict(heads=2, head_size=64, expand_v=1.0),
    {},
    {
      "transformers Qwen3NextGatedDeltaNet": dict(
        linear_num_key_heads=2, linear_num_value_heads=2, linear_key_head_dim=64, linear_value_head_dim=64
      )
    },
    SHORT,
  ),
  Beside(
    "kda",
    dict(heads=2, head_size=64),
    {},
    {"transformers KimiLinearDeltaAttention": dict(linear_num_heads=2, linear_head_dim=64)},
    SHORT,
  ),
  Beside("rnn", {}, {}, {"torch.nn.RNN": {}}, SHORT),
  Beside("gru", dict(reset_gate="after"), {}, {"torch.nn.GRU": {}}, SHORT),
  Beside("lstm", {}, {}, {"torch.nn.LSTM": {}}, SHORT),
)


def cases() -> list[Case]:
  """Groups of one, then those of PEERS."""
  names = [name for name, path in mixer.available().items() if path.split(".")[0] in ("ssm", "attention")]
  rows = [case for name in names for case in ours(name, name, SIZES.get(name, (BATCH, LENGTH, WIDTH)))]
  for name, fields, jax_peers, torch_peers, size in PEERS:
    label = " ".join([f"{name} beside peers", *(f"{key}={x}" for key, x in fields.items())])
    rows += ours(name, label, size, **fields)
    for peer, kwargs in jax_peers.items():
      rows += jax_layers.cases(peer, group(label, size), size, **kwargs)
    for peer, kwargs in torch_peers.items():
      rows += torch_layers.cases(peer, group(label, size), size, **kwargs)
  return rows


def group(label: str, size: tuple[int, int, int]) -> str:
  batch, length, width = size
  return f"{label}, B{batch} L{length} width {width}"


def ours(name: str, label: str, size: tuple[int, int, int], **fields: Any) -> list[Case]:
  """Forward, and forward+backward with respect to parameters and input."""
  layer = mixer.build(name, width=size[-1], **fields)

  def make(measure):
    x = jax.random.normal(jax.random.key(1), size)
    variables = jax.jit(layer.init)(jax.random.key(0), x)
    fn = lambda variables, x: layer.apply(variables, x)
    return measure(fn, variables, x)

  return [
    Case(f"{group(label, size)}, forward", f"ours ({name})", lambda: make(compiled)),
    Case(f"{group(label, size)}, forward+backward", f"ours ({name})", lambda: make(gradients)),
  ]
