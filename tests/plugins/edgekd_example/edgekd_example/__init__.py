"""A package of its own that adds a loss, a family, a task, a teacher and a kind of device to edgekd."""
