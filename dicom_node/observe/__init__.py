"""Logs, metrics and audit, without patient attributes."""
