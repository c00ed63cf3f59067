"""Small models of many kinds with random weights, each built by a function without arguments, as a person's own is.

What stands in `catalogue.py` is the zoo; the other files hold its models. Nothing is downloaded: those of
`transformers` come from configurations, the others are written as their papers draw them.
"""
