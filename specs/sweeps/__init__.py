"""Sweeps to configurations, tuned settings, stages of seeds."""
