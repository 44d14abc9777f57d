"""`python -m rltrain` is `rltrain`."""

import os
import sys

if __name__ == "__main__" and not sys.flags.safe_path:
    try:
        if sys.path[0] in ("", os.getcwd()):
            del sys.path[0]  # put there by -m: nothing in the current directory may shadow what is imported from here on
    except OSError:  # it was deleted
        pass

from rltrain.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
