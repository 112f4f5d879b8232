"""What Merge Advisor measures: tasks, fine-tuning runs and the constants of the bound.

This package knows nothing of studies, advice or pages (see ``docs/architecture.md``).
"""
