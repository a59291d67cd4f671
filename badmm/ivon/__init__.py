"""IVON as a torch optimizer: `from badmm.ivon import IVON`.

optimizer   IVON itself: the block in which parameters are a sample, the step, prior and duals
settings    what a parameter group holds, and its checks
slots       one parameter's memory: its mean, the sample shown in its place, the sample's gradient
stores      state of slots in flat arrays, and the kernels' calls on the pieces that are trained
arrange     which slots and stores a group's parameters make, anew where a user replaced or froze one
waiting     the samples that wait for a step, and what a block shows
states      which state dictionaries load
prior       the prior and the duals in a step
diagnosis   whether h has moved
ranks       averages over torch.distributed's ranks
backends    the kernels that a device's tensors run on
"""

from badmm.ivon.optimizer import IVON

__all__ = ["IVON"]
