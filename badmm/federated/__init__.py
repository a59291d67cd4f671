"""Federated deep learning: many clients, one network, methods behind one interface. Needs the extra `torch`.

Data flow of a round (`rounds.play`): a `Method` gives every stack of clients a `LocalSolver`, `training.train` feeds it
minibatch gradients of the stacked network, the method turns its end point into what is sent and what the client keeps,
and the server line consumes what was sent. Every random number comes from `streams`, by (seed, purpose, round, client).
"""
