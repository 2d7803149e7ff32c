"""From a method of DSPy's to a span: patching it, following a call of it, and what is told of that call."""
