"""Mixers that approximate or replace softmax attention at less than its cost: the models of the Long Range Arena."""
