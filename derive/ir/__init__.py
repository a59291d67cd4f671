"""The intermediate representation that every emitter reads: nodes, an evaluator, a printer."""
