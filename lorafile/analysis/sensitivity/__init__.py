"""What will this study be able to conclude: the smallest difference it detects, before anything is paid for.

Where a variance comes from, what follows from it for a plan, and the cheapest seeds and test rows that detect more.
"""
