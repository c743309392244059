"""Adds to pyproject.toml what it cannot say: the extension module, which cffi compiles."""
from setuptools import setup

setup(cffi_modules=["native.py:ffi"])
