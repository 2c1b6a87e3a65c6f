"""What a model makes of prompts and texts: likelihoods, choices, answers, chat.

What is stored of it is written by `nodes/predict.py`.
"""
