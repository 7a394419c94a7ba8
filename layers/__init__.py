"""Parametrised parts that several mixers share: dense layers, norms, short convolutions, positions, initialisers.

A layer casts its parameters to the dtype of its input and returns that dtype, so precision is one cast at the
embedding. Parameters are float32 and carry logical axis names: embed, inner, heads, kv, mlp, expert, vocab, rows (of
tables of n-grams), state, taps, or None.
"""

from layers.block_dense import BlockDense
from layers.dense import Dense, project, torch_dense
from layers.norms import BatchNorm, GatedRMSNorm, HeadNorm, LayerNorm, RMSNorm, make_norm, make_token_norm
from layers.param import buffer, param
from layers.short_conv import ShortConv

__all__ = [
  "BatchNorm",
  "BlockDense",
  "Dense",
  "GatedRMSNorm",
  "HeadNorm",
  "LayerNorm",
  "RMSNorm",
  "ShortConv",
  "buffer",
  "make_norm",
  "make_token_norm",
  "param",
  "project",
  "torch_dense",
]
