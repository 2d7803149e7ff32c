"""Real parts that tests run against: a collector, a recorder of what it passes on, an LM. No tests."""
