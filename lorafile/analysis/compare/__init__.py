"""Is a configuration better than another: comparisons, verdicts, confounders.

`pairs.py` says what is compared, `outcomes.py` with which figures, `verdicts.py` judges them as one family, and
`verdict_text.py` says it. The tests themselves are in `statistics`.
"""
