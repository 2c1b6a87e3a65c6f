"""Is a configuration better than another: comparisons, verdicts, confounders."""
