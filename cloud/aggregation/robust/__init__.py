"""Rules that withstand clients who lie. A row with NaN or infinity counts as a liar's, in all of them."""
