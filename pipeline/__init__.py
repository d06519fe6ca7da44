"""Stages over files: everything a person runs."""
