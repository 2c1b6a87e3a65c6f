"""The text and JSON that commands print: one file a command, under the same name as in cli/."""
