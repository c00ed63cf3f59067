"""Tasks on signals: recordings and numeric series."""
