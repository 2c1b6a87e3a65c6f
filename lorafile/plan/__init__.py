"""What would be done and why: the planner, plan files, drift, cost."""
