"""Serve exported generators over HTTP: bundles in, pictures out."""

__version__ = "0.1.0"
