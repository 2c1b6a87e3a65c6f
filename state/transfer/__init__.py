"""`lora state export` and `import`: tables for other tools, bundles for other states.

What comes from outside is believed only once it is proven.
"""
