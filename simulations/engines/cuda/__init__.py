"""A cohort trained as one computation on a GPU: stacked clients, hand-written passes, captured steps."""
