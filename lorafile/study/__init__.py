"""The Python API: `Study`, and what it does not do itself but the commands need of it.

Previews of data, the two sides of a diff, a first spec, stages of seeds, summaries of runs, several studies on a page.
Nothing here prints, and what can be done without a whole study belongs in the packages below.
"""
