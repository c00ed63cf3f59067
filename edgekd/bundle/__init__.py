"""The folder a person ships: the model, its certificate, what is left outside the graph, a card and an example."""
