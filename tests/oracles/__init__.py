"""Mixers written once more: NumPy, float64, plain loops, from the papers' equations. They share nothing with the code.

Every oracle is `run(p, x, ...)` for one document: p maps parameter paths ("out_proj/kernel") to arrays, x is `t d`;
further arguments are side inputs, and the mixer's hyper-parameters that parameters do not show.
"""
