"""The command-line tools; a process that runs one takes the fast kernels of NumPy's BLAS."""

from heatc.blas import set_up

set_up()
