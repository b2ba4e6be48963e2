/*
 * The sums of a tile: the windows whose corners are (top, left), with the weights of `channels`
 * output channels. `size` is the number of weights of a channel.
 */
static void tile_sums(const uint8_t *in, struct shape src, struct window window, int zero_point,
                      const int top[TILE_PIXELS], const int left[TILE_PIXELS], int in_channels,
                      const int8_t *weight, int size, int channels,
                      int32_t sums[TILE_PIXELS][TILE_CHANNELS])
{
    int16_t x[TILE_PIXELS][TILE_DEPTH];
    for (int p = 0; p < TILE_PIXELS; p++)
        for (int c = 0; c < channels; c++)
            sums[p][c] = 0;
    for (int first = 0; first < size; first += TILE_DEPTH) {
        const int count = min_int(TILE_DEPTH, size - first);
        for (int p = 0; p < TILE_PIXELS; p++)
            im2col(in, src, window, zero_point, top[p], left[p], in_channels, first, count, x[p]);
        multiply_accumulate(x, count, weight + first, size, channels, sums);
    }
}
