"""Train generators and export them as bundles: recipe + data -> run -> bundle."""

import os

# ONNX Runtime from 1.29 on reports process, graphs and hardware to its maker, unless this is set before it is loaded.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
