"""Suites of measured merges, and the judge that holds advice against them (``docs/benchmark.md``)."""
