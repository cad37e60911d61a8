"""Run a study of the method: `python scripts/study.py study=speed size=smoke`."""

from macformer.studies.cli import main

if __name__ == "__main__":
    main()
