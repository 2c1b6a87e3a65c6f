"""The study at a glance: the summary, its chart, and the questions people ask."""
