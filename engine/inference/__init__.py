"""Predictions of a loaded model: likelihoods, choices, answers, chat.

What is stored of them is written by `nodes/predict.py`.
"""
