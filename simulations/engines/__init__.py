"""Ways to train a cohort: the same assignment gives the same updates in all of them, to float tolerance."""
