"""upper on uvloop: the same coroutines as asyncio's streams."""

import sys
from pathlib import Path

import uvloop

sys.path.insert(0, str(Path(__file__).parent))
from upper_asyncio_streams import main

if __name__ == "__main__":
    uvloop.run(main())
