"""How to forget: one file a method."""
