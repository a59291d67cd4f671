"""What is proved before anything is written: claims about families, rounds, optimizers and special functions."""
