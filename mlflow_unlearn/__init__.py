"""Trace erased records to model versions, make the models forget, measure how well, and gate what may be deployed."""
