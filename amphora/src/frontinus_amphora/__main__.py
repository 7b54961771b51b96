"""Let `python -m frontinus_amphora` be the command."""

from frontinus_amphora.main import main

if __name__ == "__main__":
    raise SystemExit(main())
