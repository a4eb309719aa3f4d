"""`python -m dreamer_lite` is `dreamer-lite`."""

from dreamer_lite.cli import main

if __name__ == "__main__":
    main()
