"""Keras layers, losses and models, one module per system."""
