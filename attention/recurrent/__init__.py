"""Mixers whose queries read a matrix that keys and values have written: linear attention and its successors."""
