"""echo over TLS on uvloop: the same Protocol as asyncio's, as uvloop's documentation runs it."""

import sys
from pathlib import Path

import uvloop

sys.path.insert(0, str(Path(__file__).parent))
from echo_tls_asyncio import main

if __name__ == "__main__":
    uvloop.run(main())
