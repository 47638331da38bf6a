"""Measures each stage of the pipeline by itself and all of them together: `./scripts/bench`."""
