"""Compares Martlet with job queues that can be had from the registries. See README.md beside it."""
