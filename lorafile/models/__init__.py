"""One checkpoint outside a plan: evaluate, chat, export, import, its model card."""
