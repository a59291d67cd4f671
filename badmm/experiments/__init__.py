"""Runs from a configuration file: settings, folder, history, checkpoints, reports, plots."""
