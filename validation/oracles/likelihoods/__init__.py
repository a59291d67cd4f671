"""One file per likelihood, each with `cases()`: clients beside the loss that each of them stands for."""
