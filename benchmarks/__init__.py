"""Benchmarks: commands that print JSON, run by `make bench-*`. Never imported by the product."""
