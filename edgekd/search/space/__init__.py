"""Space of archs: constraint filters, predicted and analytic costs, prior observations."""
