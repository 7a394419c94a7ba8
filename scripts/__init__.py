"""Programs beside main.py: sweeps and benchmarks. Nothing imports them."""
