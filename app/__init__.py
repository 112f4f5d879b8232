"""The window: pages that show values and ask for values, and compute nothing themselves."""
