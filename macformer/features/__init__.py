"""Choose random features for a trained model by their error and their cost."""
