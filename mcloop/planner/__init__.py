"""How much synthetic data is safe, under which regime, and what every paper's symbols mean in points."""
