"""The demonstration: the whole loop on one machine, as a thin script over the product's public interfaces."""
