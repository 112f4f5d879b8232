"""The pages, one file each: thin, they show values and ask for values."""
