"""Bodies, the layers between a model's embedding and its head. A body is a mixer, but may change time and width."""
