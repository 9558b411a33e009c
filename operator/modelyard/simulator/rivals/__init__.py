"""Scaling rules that others published, written anew from their documentation and code, to be compared with ours.

`catalogue.RIVALS` lists them. Each module states where its constants come from, and what its rule cannot do here.
"""
