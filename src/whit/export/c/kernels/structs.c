/* A feature map in HWC layout: row by row, the channels of a pixel adjacent. */
struct shape {
    int height, width, channels;
};

/* The window of a convolution or pooling: kernel size, stride, zero padding, dilation. */
struct window {
    int height, width, stride_y, stride_x, padding_y, padding_x, dilation_y, dilation_x;
};
