"""Train generators and export them as bundles: recipe + data -> run -> bundle."""
