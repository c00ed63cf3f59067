"""Which backend at which precision: ranking them on reference archs, and checking a ranking again."""
