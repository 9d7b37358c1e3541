"""What a run leaves behind: one folder with metrics, model, environment, plots and a report."""
