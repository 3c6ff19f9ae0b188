"""What to keep: from scores and a budget to a plan, what it predicts, and what it measures."""
