"""Choose random features for a model: `choose_features.py checkpoint=outputs/runs/x error=0.05`."""

from macformer.features.cli import main

if __name__ == "__main__":
    main()
