"""From sweeps to configurations: points, tuned settings and their candidates, and stages of more seeds.

Which values a setting may have is checked in `specs.checks`; which candidate is chosen is decided in `plan`.
"""
