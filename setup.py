"""Packages are found, not listed: every folder of Python under rltrain/, and conf/ as rltrain/conf."""

from setuptools import find_namespace_packages, setup

setup(packages=[*find_namespace_packages(include=["rltrain", "rltrain.*"]), "rltrain.conf"])
