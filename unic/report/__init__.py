"""The report of an experiment: its page, figures, contact sheets and tables."""
