"""The net of drunet.npz, made alike on both sides."""

WIDTHS, BLOCKS, SIDES = (4, 6, 8), 2, (8, 12)
