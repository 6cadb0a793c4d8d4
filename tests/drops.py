"""The steps that give drops of water an edge and a shade (`spatter`), slowly: loops over pixels, graphs and scipy."""

import numpy as np
from scipy import ndimage, sparse


def canny(level: np.ndarray, low: int, high: int) -> np.ndarray:
    """One image, pixel by pixel."""
    wide = np.pad(level.astype(int), 1, mode="edge")
    gx = ndimage.correlate(wide, [[-1, 0, 1], [-2, 0, 2], [-1, 0, 1]])[1:-1, 1:-1]
    gy = ndimage.correlate(wide, [[-1, -2, -1], [0, 0, 0], [1, 2, 1]])[1:-1, 1:-1]
    size = np.pad(np.abs(gx) + np.abs(gy), 1)
    peak = np.zeros(level.shape, bool)
    for r, c in np.argwhere(size[1:-1, 1:-1] > low):
        m, x, y = size[r + 1, c + 1], abs(gx[r, c]), abs(gy[r, c])
        if y < x * np.tan(np.pi / 8):
            peak[r, c] = m > size[r + 1, c] and m >= size[r + 1, c + 2]
        elif y > x * np.tan(3 * np.pi / 8):
            peak[r, c] = m > size[r, c + 1] and m >= size[r + 2, c + 1]
        else:
            s = -1 if (gx[r, c] < 0) != (gy[r, c] < 0) else 1
            peak[r, c] = m > size[r, c + 1 - s] and m > size[r + 2, c + 1 + s]
    size = size[1:-1, 1:-1]
    parts, _ = ndimage.label(peak & (size > low), np.ones((3, 3)))
    return np.isin(parts, np.unique(parts[peak & (size > high)])) & (parts > 0)


def chamfer(target: np.ndarray) -> np.ndarray:
    """One image, shortest paths in the graph of pixels."""
    height, width = target.shape
    place = np.arange(height * width).reshape(height, width)
    rows, columns, costs = [], [], []
    for dy, dx in ((0, 1), (1, 0), (1, 1), (1, -1), (1, 2), (2, 1), (1, -2), (2, -1)):
        a = place[: height - dy, max(0, -dx) : width - max(0, dx)]
        b = place[dy:, max(0, dx) : width + min(0, dx)]
        rows.append(a.ravel())
        columns.append(b.ravel())
        costs.append(np.full(a.size, {1: 1.0, 2: 1.4, 5: 2.1969}[dy * dy + dx * dx]))
    graph = sparse.coo_array((np.concatenate(costs), (np.concatenate(rows), np.concatenate(columns))), (place.size, place.size)).tocsr()
    far = sparse.csgraph.dijkstra(graph, directed=False, indices=place[target], min_only=True)
    return far.reshape(height, width)


def shaded(level: np.ndarray) -> np.ndarray:
    """One 8-bit layer of drops to its shading, 0 to 255."""
    near = np.floor(ndimage.uniform_filter(np.minimum(chamfer(canny(level, 50, 150)), 20), 3, mode="mirror") + 1e-9)
    values, counts = np.unique(near, return_counts=True)
    upto = np.cumsum(counts)
    even = np.round(255 * (upto - upto[0]) / max(level.size - upto[0], 1)) if len(values) > 1 else values
    flat = even[np.searchsorted(values, near)]
    relief = np.clip(ndimage.correlate(flat, [[-2, -1, 0], [-1, 1, 1], [0, 1, 2]], mode="mirror"), 0, 255)
    return np.round(ndimage.uniform_filter(relief, 3, mode="mirror"))
