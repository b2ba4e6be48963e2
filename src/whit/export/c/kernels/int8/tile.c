/*
 * Tile of a convolution: TILE_PIXELS output pixels x TILE_CHANNELS output channels, over TILE_DEPTH
 * taps at a time. Taps come in multiples of BLOCK, padded with zeros, so that vector loops have no
 * remainder; weight arrays therefore end with BLOCK - 1 zeros. Processors of 32 bits have no vector
 * units and little memory, so their tiles are small; -DSMALL_TILES selects these elsewhere.
 */
#ifndef DSP
#if UINTPTR_MAX > UINT32_MAX && !defined(SMALL_TILES)
enum { TILE_PIXELS = 4, TILE_DEPTH = 256, TILE_CHANNELS = 32, BLOCK = 32 };
#else
enum { TILE_PIXELS = 4, TILE_DEPTH = 32, TILE_CHANNELS = 24, BLOCK = 1 };
#endif

static inline int min_int(int a, int b)
{
    return a < b ? a : b;
}

static inline int max_int(int a, int b)
{
    return a > b ? a : b;
}

/*
 * Copy `count` inputs of the window whose corner is (top, left), from index `first` on, in the
 * order of the weights. Padding has the value `zero_point`.
 */
static void im2col(const uint8_t *in, struct shape src, struct window window, int zero_point,
                   int top, int left, int in_channels, int first, int count,
                   int16_t *restrict out)
{
    const int tap = first / in_channels;
    int ky = tap / window.width, kx = tap % window.width, i = first % in_channels;
    for (int k = count; k % BLOCK; k++)
        out[k] = 0;
    while (count > 0) {
        const int y = top + ky * window.dilation_y, x = left + kx * window.dilation_x;
        const int inside = y >= 0 && y < src.height && x >= 0 && x < src.width;
        /* The remaining taps of a row are copied at once where they are contiguous in the input. */
        const int contiguous = inside && window.dilation_x == 1 && in_channels == src.channels;
        const int taps = contiguous ? min_int(window.width - kx, src.width - x) : 1;
        const int run = min_int(taps * in_channels - i, count);
        if (inside) {
            const uint8_t *values = in + (y * src.width + x) * src.channels + i;
            for (int k = 0; k < run; k++)
                out[k] = values[k];
        } else {
            for (int k = 0; k < run; k++)
                out[k] = (int16_t)zero_point;
        }
        out += run;
        count -= run;
        i = 0;
        kx += taps;
        if (kx == window.width) {
            kx = 0;
            ky++;
        }
    }
}

/*
 * Add the dot products of TILE_PIXELS windows with each channel's weights to its sums. `size` is
 * the number of weights of a channel. Inputs are int16, since vector units multiply and add these
 * in pairs.
 */
static void multiply_accumulate(int16_t x[TILE_PIXELS][TILE_DEPTH], int count,
                                const int8_t *weight, int size, int channels,
                                int32_t sums[TILE_PIXELS][TILE_CHANNELS])
{
    const unsigned blocks = ((unsigned)count + BLOCK - 1) / BLOCK;
    for (int o = 0; o < channels; o++) {
        const int8_t *w = weight + o * size;
        int32_t sum0 = 0, sum1 = 0, sum2 = 0, sum3 = 0;
        for (unsigned k = 0; k < blocks * BLOCK; k++) {
            sum0 += x[0][k] * w[k];
            sum1 += x[1][k] * w[k];
            sum2 += x[2][k] * w[k];
            sum3 += x[3][k] * w[k];
        }
        sums[0][o] += sum0;
        sums[1][o] += sum1;
        sums[2][o] += sum2;
        sums[3][o] += sum3;
    }
}
#endif
