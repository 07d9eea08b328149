"""The thin helper package behind the notebooks."""
