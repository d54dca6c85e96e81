"""`python -m heartml COMMAND`: how dvc.yaml runs the stages; the same as `heartml COMMAND`."""

from heartml.cli import main

if __name__ == "__main__":
    main()
