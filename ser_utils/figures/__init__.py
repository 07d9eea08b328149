"""Everything that draws, one module per domain; functions return a Figure, `style.save_figure` writes it."""
