"""All archs of a space in one network, the distribution over them, and what each part of an arch costs."""
