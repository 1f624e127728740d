"""Training: what a run of training is (config), its batches, its loss and the one loop that knows no methods."""
