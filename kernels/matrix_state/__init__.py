"""Heads whose state is a matrix, in C++ for CPUs: what `ssd`, `gated_linear_attention` and `delta_rule` share."""
