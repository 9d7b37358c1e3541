"""Triton kernels: what cuBLAS and cuDNN have no good routine for when every client has weights of its own."""
