"""Fictitious customers."""
