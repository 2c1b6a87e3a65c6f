"""Predictions: likelihoods, choices, answers, chat."""
