"""The report: HTML page, RESULTS.md, results.tex, figures as JSON and CSV."""
