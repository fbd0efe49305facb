import sys

from bench.updates import main

sys.exit(main())
