"""One checkpoint outside a study's plan: evaluate it, chat with it, export it with a model card, import it.

What the commands of that name need, each a function of a spec or plan, a state and a name. Loading and running a model
is the engine's job, and a study's own runs are planned in `plan/`.
"""
