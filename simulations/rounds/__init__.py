"""The round loop: who trains, what becomes of the updates, what is kept until the next round."""
