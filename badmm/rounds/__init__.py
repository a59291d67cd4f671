"""The round: step sizes, mixing, who takes part, history."""
