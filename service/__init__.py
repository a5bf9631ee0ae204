"""Serve exported generators over HTTP: bundles in, pictures out."""

import os

__version__ = "0.1.0"

# ONNX Runtime from 1.29 on reports process, graphs and hardware to its maker, unless this is set before it is loaded.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
