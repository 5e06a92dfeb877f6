"""The FPTT unit as hardware, and the arithmetic it is made of.

`formats` and `arithmetic` are plain NumPy; what describes hardware needs Amaranth, which
`pip install 'fptt[hardware]'` brings.
"""
