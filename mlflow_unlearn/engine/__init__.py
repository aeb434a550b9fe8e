"""Batches, the label-only head and the descent loop: everything between a method's formula and a model's weights."""
