"""CPU kernels, generated with LLVM (llvmlite) for each array size, for operations that XLA compiles
poorly: Fourier transforms of planes whose sides have prime factors of at most 13, three to four
times as fast as XLA's on one core, with the products before and behind them; spline coefficients;
products with sparse matrices."""
