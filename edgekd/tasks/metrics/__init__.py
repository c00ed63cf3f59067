"""Metrics of each kind of head, by the field's own libraries: what a figure is called is what it is elsewhere."""
