"""What makes stacks of small networks fast: passes, compiled kernels, records. Imports nothing else of ours."""
