"""Report of a run: one self-contained HTML file, drawn from the run folder's records and nothing else.

`facts` gathers, the other files draw; none of them computes a figure.
"""
