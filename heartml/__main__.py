"""`python -m heartml COMMAND`: what `dvc.yaml` calls."""

from heartml.cli import main

if __name__ == "__main__":
    main()
