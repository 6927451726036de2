"""`python -m control_plane.cli`: the `hauberk` command without its script."""

from control_plane.cli.main import main

if __name__ == "__main__":
    main()
