"""Who could tell: one file an attack."""
