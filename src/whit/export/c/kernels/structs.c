/* A feature map in HWC layout: row by row, the channels of a pixel adjacent. */
struct shape {
    int height, width, channels;
};

/* The window of a convolution or pooling: kernel size, stride, zero padding, dilation. */
struct window {
    int height, width, stride_y, stride_x, padding_y, padding_x, dilation_y, dilation_x;
};

/* Arrays of a function that is inlined into its caller would lie in memory beside those of others. */
#ifdef __GNUC__
#define OWN_FRAME __attribute__((noinline))
#else
#define OWN_FRAME
#endif
