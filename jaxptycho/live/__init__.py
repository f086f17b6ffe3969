"""Live processing: pictures of a scan while it is recorded.

A receiver, in a process of its own (`receiver`), takes frames from a source (`sources`) into a ring
in shared memory (`ring`) and onto the disk. A session (`session`) feeds processors with what has
come and makes pictures of their states, for a page in the browser (`page`) or a folder. `camera`
simulates cameras that speak the same protocols.
"""
