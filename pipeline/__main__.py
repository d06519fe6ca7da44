"""`python -m pipeline STAGE`."""

from pipeline.cli import main

if __name__ == "__main__":
    main()
