"""Contract suites: subclass one, override its fixture, and your implementation is held to the Protocol's promises."""
