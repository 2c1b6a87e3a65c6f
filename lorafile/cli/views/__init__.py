"""The text and JSON that commands print: a file for each command, under the same name as in `cli/`.

A view gets a result and a console, and reads neither files nor the state. What views share is in `console.py`.
"""
