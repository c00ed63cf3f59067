"""Signal tasks: recordings and numeric series."""
