"""Aspect-ratio buckets: a few sizes of about equal area, so that pictures of any shape lose little."""

Size = tuple[int, int]  # width, height, px

AREA = 0.175  # share by which a bucket's area may differ from that of the square


def bucket_table(resolution: int, step: int, max_aspect: float) -> list[Size]:
    """The buckets around a square of `resolution`: sides multiples of `step`, from narrow to wide.

    For each width the two heights about resolution²/width, and the same turned. Buckets of nearly equal area are too
    few at 512 px and step 64: between 896 x 256 and 896 x 320 lies a gap that crops 11%. So areas may differ by
    17.5% (960 x 320 has 17.2% more than 512 x 512); then any aspect from 1:4 to 4:1 loses 7.4% at most.
    `resolution` is a multiple of `step`, so the square is one of them.
    """
    area = resolution**2
    found = set[Size]()
    for width in range(step, int(resolution * max_aspect) + 1, step):
        below = area // width // step * step
        for height in (below, below + step):
            narrow = max(width, height) > max_aspect * min(width, height)
            if not narrow and abs(width * height - area) <= AREA * area:
                found |= {(width, height), (height, width)}
    return sorted(found)


def kept_share(bucket: Size, size: Size) -> float:
    """Share of a picture that is seen where it fills the bucket, 0 to 1."""
    wide, narrow = bucket[0] * size[1], bucket[1] * size[0]
    return min(wide, narrow) / max(wide, narrow)


def nearest_bucket(table: list[Size], size: Size) -> Size:
    """The bucket that crops least of a picture; of several that nearest in area, then the first of the table."""
    area = size[0] * size[1]
    return max(table, key=lambda bucket: (kept_share(bucket, size), -abs(bucket[0] * bucket[1] - area)))
